"""`cirkd benchmark`: figures as ratios, measured side by side in one run."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stages.command import StageCommand, device_option, params_option
from store.files import write_json

out_option = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="JSON file for the figures."
)


def teacher_arguments(function: Callable[..., None]) -> Callable[..., None]:
    """INDEX, TEACHER and the options that a measurement with a real teacher takes."""
    for decorate in (
        out_option,
        device_option,
        params_option,
        click.argument("teacher_path", metavar="TEACHER", type=click.Path(path_type=Path)),
        click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path)),
    ):
        function = decorate(function)
    return function


@click.group("benchmark")
def command() -> None:
    """Measure losses, store and extraction on this machine."""


def report(figures: dict[str, float], out: Path) -> None:
    """Print the figures and write them."""
    write_json(figures, out)
    for name, value in figures.items():
        click.echo(f"{name:24} {value:.4g}")


@command.command("losses", cls=StageCommand)
@out_option
def benchmark_losses(out: Path) -> None:
    """Time and peak memory of the fused relational losses against plain autograd."""
    from pipeline.benchmarks.losses import benchmark

    report(benchmark(), out)


@command.command("store", cls=StageCommand)
@teacher_arguments
def benchmark_store(out: Path, **files: Any) -> None:
    """Size, speed and fidelity of the store at 512x1024, with TEACHER on images of INDEX."""
    from pipeline.benchmarks.store import benchmark

    _with_teacher(benchmark, out, **files)


@command.command("extract", cls=StageCommand)
@teacher_arguments
def benchmark_extract(out: Path, **files: Any) -> None:
    """Extraction of 32 views at 256x512 over the bare forward of TEACHER."""
    from pipeline.benchmarks.extract import benchmark

    _with_teacher(benchmark, out, **files)


def _with_teacher(
    benchmark: Callable[..., dict[str, float]],
    out: Path,
    index_path: Path,
    teacher_path: Path,
    params_path: Path,
    device: str,
) -> None:
    from stages.extract import JobFiles

    job = JobFiles(index_path, teacher_path, params_path, device)()
    with tempfile.TemporaryDirectory() as folder:
        report(benchmark(job, Path(folder)), out)


if __name__ == "__main__":
    command()
