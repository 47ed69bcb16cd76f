"""Work on the units of a store, in threads."""

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from dask.base import compute
from dask.delayed import delayed

from store.progress import Progress

Result = TypeVar("Result")
_compute: Any = compute  # dask does not annotate it


def map_units(
    function: Callable[[int], Result],
    units: Iterable[int],
    count: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Return what the function returns for each unit, in their order; `count` follows a unit."""

    def call(unit: int) -> Result:
        result = function(unit)
        count()
        return result

    tasks = [delayed(call)(unit) for unit in units]
    return list(_compute(*tasks, scheduler="threads"))


def counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """Return what any thread calls when one more of `total` is done; `progress` is told in turn."""
    numbers, lock = itertools.count(), threading.Lock()

    def count() -> None:
        with lock:
            if progress is not None:
                progress(next(numbers), total)

    count()  # none is done yet
    return count
