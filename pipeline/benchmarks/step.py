"""A training step from the store against one with labels alone and one with the teacher in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pipeline.benchmarks.floor import floor, matrix_rate
from pipeline.benchmarks.peak import in_fresh_process, resident_peak_bytes
from pipeline.benchmarks.random_store import fill_queues, write_random_store
from pipeline.benchmarks.rivals import WAYS, Rivals, finish_step, step_medians
from pipeline.benchmarks.setting import NUM_PEAK_STEPS, Setting, cirkd_run, random_job
from pipeline.benchmarks.trainer import build_objective
from pipeline.runtime.environment import device_name, peak_memory_bytes
from store.reader import open_store

STUDENTS = ("deeplabv3_resnet18", "deeplabv3_mobilenet_v2", "pspnet_resnet18")


@dataclass(frozen=True)
class Case:
    """One student in one precision, over the store in `folder`."""

    setting: Setting
    device: torch.device
    folder: Path
    architecture: str
    precision: str

    def rivals(self, num_workers: int) -> Rivals:
        """What is stepped."""
        run = cirkd_run(self.setting, self.architecture, self.precision)
        return Rivals(
            reader=open_store(self.folder / "store"),
            run=run,
            teach=partial(random_job, self.setting, self.precision, self.device),
            fill=partial(fill_queues, run, self.device),
            device=self.device,
            num_workers=num_workers,
        )


def benchmark(
    setting: Setting,
    device: torch.device,
    folder: Path,
    *,
    students: tuple[str, ...] = STUDENTS,
    num_workers: int = 1,
    num_rounds: int = 5,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[dict[str, Any]]:
    """Step every student in every way over a store of random images, labels and targets.

    Args:
        setting: what is measured.
        device: where.
        folder: an empty one, for the store.
        students: architectures.
        num_workers: loader processes, as in training.
        num_rounds: timed rounds, every way in turn.
        progress: told what is measured next.

    Yields:
        After each student and precision, the figures until then, so that a killed benchmark keeps
        them: the setting, the device, and for each student and precision offline_over_ce,
        online_over_offline, live_over_offline (the teacher in the loop, all else as offline) and
        data_wait_fraction; the seconds of each step; the peak bytes of a fresh process' first
        steps, with all that it builds for them and without loader processes; and the floor.
    """
    torch.set_num_threads(setting.threads)
    write_random_store(random_job(setting, setting.precisions[0], device), folder / "store")
    figures: dict[str, Any] = {
        "setting": asdict(setting),
        "device": device_name(device),
        "num_workers": num_workers,
        "results": {},
    }
    for precision, architecture in product(setting.precisions, students):
        name = f"{architecture} {precision}"
        progress(name)
        case = Case(setting, device, folder, architecture, precision)
        figures["results"][name] = _measure(case, num_workers, num_rounds)
        yield figures


def _measure(case: Case, num_workers: int, num_rounds: int) -> dict[str, float]:
    # Peaks first: afterwards this process holds memory of the device that theirs may need.
    peaks = {way: in_fresh_process(_peak_here, case, way) for way in WAYS}
    rivals = case.rivals(num_workers)
    seconds, wait = step_medians(rivals, num_rounds)
    objective = build_objective(rivals.run, rivals.reader.spec, case.device)
    # Some processors multiply bfloat16 more slowly than float32; a floor knows no such detour.
    side, precisions = case.setting.matrix_side, {"float32", case.precision}
    rate = max(matrix_rate(case.device, precision, side) for precision in precisions)
    return {
        "offline_over_ce": seconds["offline"] / seconds["ce"],
        "online_over_offline": seconds["online"] / seconds["offline"],
        "live_over_offline": seconds["live"] / seconds["offline"],
        "data_wait_fraction": wait,
        **{f"{way}_s": value for way, value in seconds.items()},
        **{f"{way}_peak_bytes": peak for way, peak in peaks.items()},
        **floor(objective, case.setting, case.device, rate),
    }


def _peak_here(case: Case, way: str) -> int:
    torch.set_num_threads(case.setting.threads)

    def take() -> None:
        steps = case.rivals(num_workers=0).steps(way)
        for _ in range(NUM_PEAK_STEPS):
            finish_step(steps)

    if case.device.type == "cuda":
        take()
        return peak_memory_bytes(case.device)
    return resident_peak_bytes(take)
