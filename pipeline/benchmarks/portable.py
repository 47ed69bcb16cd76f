"""What README's two commands cost on this machine, in a unit that machines can be compared by."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from pipeline.benchmarks.floor import matrix_rate
from pipeline.runtime.environment import describe_device

MATRIX_SIDE = 2048
NUM_PRODUCTS = 10


def benchmark(project: Path, suite: bool) -> Iterator[dict[str, object]]:
    """Run `dvc repro` from nothing, and the fast suite, in a project's folder; yield after each.

    cost = wall seconds x the float32 rate of a 2048x2048 product on all cores, measured just
    before: what the command would have computed at that rate, start-up and waiting included.

    Args:
        project: a fresh clone.
        suite: whether the suite is run, too.

    Raises:
        FileExistsError: the pipeline has run there, so that `dvc repro` would cost nothing.
        subprocess.CalledProcessError: a command failed.
    """
    if (artifacts := project / "artifacts").exists():
        raise FileExistsError(
            f"{artifacts}: `dvc repro` has run here; expected none of it. Run in a fresh clone"
        )
    rate = matrix_rate(torch.device("cpu"), "float32", MATRIX_SIDE, NUM_PRODUCTS)
    seconds = _run_seconds(project, "-m", "stages.repro")
    figures = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "hardware": describe_device(torch.device("cpu")),
        "matrix_gflops": rate / 1e9,
        "repro_s": seconds,
        "repro_tflop": seconds * rate / 1e12,
    }
    yield figures
    if suite:
        yield {**figures, "suite_s": _run_seconds(project, "-m", "pytest")}


def _run_seconds(project: Path, *arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=project, check=True)
    return time.perf_counter() - start
