"""Work on the units of a store, in threads."""

from collections.abc import Callable
from typing import Any, TypeVar

from dask.base import compute
from dask.delayed import delayed

Result = TypeVar("Result")
_compute: Any = compute  # dask does not annotate it


def map_units(function: Callable[[int], Result], num_units: int) -> list[Result]:
    """Return what the function returns for each unit, in their order."""
    tasks = [delayed(function)(unit) for unit in range(num_units)]
    return list(_compute(*tasks, scheduler="threads"))
