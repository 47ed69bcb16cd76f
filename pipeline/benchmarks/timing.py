"""Times that can be compared: all cases in one process, in turn, medians."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved_medians(
    calls: Mapping[str, Callable[[], object]], num_runs: int
) -> dict[str, float]:
    """Measure median seconds of each call over `num_runs` rounds of all calls in turn.

    One untimed round first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(num_runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(runs) for name, runs in seconds.items()}
