"""A training step from the store against one with labels alone and one with the teacher in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pipeline.benchmarks.floor import floor, matrix_rate
from pipeline.benchmarks.peak import in_fresh_process, resident_peak_bytes
from pipeline.benchmarks.random_store import fill_queues, write_random_store
from pipeline.benchmarks.sizes import NUM_PEAK_STEPS, Sizes, cirkd_run, random_job
from pipeline.benchmarks.trainer import build_objective
from pipeline.benchmarks.variants import VARIANTS, Setting, finish_step, step_medians
from pipeline.config.base import Precision
from pipeline.runtime.environment import describe_device, peak_memory_bytes
from store.reader import open_store

STUDENTS = ("deeplabv3_resnet18", "deeplabv3_mobilenet_v2", "pspnet_resnet18")
"""The students of the paper."""


@dataclass(frozen=True)
class Case:
    """One student in one precision, over the store in `folder`."""

    sizes: Sizes
    device: torch.device
    folder: Path
    architecture: str
    precision: Precision

    def setting(self, num_workers: int) -> Setting:
        """Describe what is stepped."""
        config = cirkd_run(self.sizes, self.architecture, self.precision)
        return Setting(
            reader=open_store(self.folder / "store"),
            config=config,
            teach=partial(random_job, self.sizes, self.precision, self.device),
            fill=partial(fill_queues, config, self.device),
            device=self.device,
            num_workers=num_workers,
        )


def benchmark(
    sizes: Sizes,
    device: torch.device,
    folder: Path,
    *,
    students: Collection[str] = STUDENTS,
    num_workers: int = 1,
    num_rounds: int = 5,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[dict[str, Any]]:  # JSON
    """Step every student in every variant over a store of random images, labels and targets.

    Args:
        sizes: what is measured.
        device: where.
        folder: an empty one, for the store.
        students: architectures.
        num_workers: loader processes, as in training.
        num_rounds: timed rounds, every variant in turn.
        progress: told what is measured next.

    Yields:
        After each student and precision, the figures until then, so that a killed benchmark keeps
        them: the setting, the device, and for each student and precision offline_over_ce,
        online_over_offline (the teacher in the loop, all else as offline), public_code_over_offline
        and data_wait_fraction; the seconds of each step; the peak bytes of a fresh process' first
        steps, with all that it builds for them and without loader processes; and the floor.
    """
    torch.set_num_threads(sizes.threads)
    write_random_store(random_job(sizes, sizes.precisions[0], device), folder / "store")
    figures: dict[str, Any] = {
        "setting": asdict(sizes),
        "device": describe_device(device),
        "num_workers": num_workers,
        "results": {},
    }
    for precision, architecture in product(sizes.precisions, students):
        name = f"{architecture} {precision}"
        progress(name)
        case = Case(sizes, device, folder, architecture, precision)
        figures["results"][name] = _measure(case, num_workers, num_rounds)
        yield figures


def _measure(case: Case, num_workers: int, num_rounds: int) -> dict[str, float]:
    # Peaks first: afterwards this process holds memory of the device that theirs may need.
    peaks = {variant: in_fresh_process(_peak_here, case, variant) for variant in VARIANTS}
    setting = case.setting(num_workers)
    seconds, wait = step_medians(setting, num_rounds)
    spec = setting.reader.spec
    objective = build_objective(setting.config, spec, case.device)
    # Some processors multiply bfloat16 more slowly than float32; a floor knows no such detour.
    side, precisions = case.sizes.matrix_side, {"float32", case.precision}
    rate = max(matrix_rate(case.device, precision, side) for precision in precisions)
    return {
        "offline_over_ce": seconds["offline"] / seconds["ce"],
        "public_code_over_offline": seconds["public_code"] / seconds["offline"],
        "online_over_offline": seconds["online"] / seconds["offline"],
        "data_wait_fraction": wait,
        **{f"{variant}_s": value for variant, value in seconds.items()},
        **{f"{variant}_peak_bytes": peak for variant, peak in peaks.items()},
        **floor(objective, case.sizes, spec, rate),
    }


def _peak_here(case: Case, variant: str) -> int:
    torch.set_num_threads(case.sizes.threads)

    def take() -> None:
        steps = VARIANTS[variant](case.setting(num_workers=0))
        for _ in range(NUM_PEAK_STEPS):
            finish_step(steps)

    if case.device.type == "cuda":
        take()
        return peak_memory_bytes(case.device)
    return resident_peak_bytes(take)
