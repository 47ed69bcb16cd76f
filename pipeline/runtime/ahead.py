"""Work on one thing while the one before it is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in order, in a thread that works on one item while the next one is fetched here."""
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for item in items:
            upcoming = pool.submit(function, item)
            if pending is not None:
                yield pending.result()
            pending = upcoming
        if pending is not None:
            yield pending.result()
