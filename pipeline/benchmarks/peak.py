"""Peak memory of one call, in a process that has done nothing else."""

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Call a module's function in a new process and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as fresh:
        return fresh.submit(function, *args, **kwargs).result()


def resident_peak_bytes(call: Callable[[], object]) -> int:
    """Measure by how much a call raises the resident memory of this process at most (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at the present RSS
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert match is not None, f"no {field} in /proc/self/status: this benchmark needs Linux"
    return int(match[1]) * 1024
