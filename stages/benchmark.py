"""`cirkd benchmark`: figures as ratios, measured side by side in one run."""

import tempfile
from pathlib import Path

import click

from stages.command import StageCommand, device_option, params_option
from store.files import write_json

out_option = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="JSON file for the figures."
)
index_argument = click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path))
teacher_argument = click.argument(
    "teacher_path", metavar="TEACHER", type=click.Path(path_type=Path)
)


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
@index_argument
@teacher_argument
@params_option
@device_option
@out_option
def benchmark_store(
    index_path: Path, teacher_path: Path, params_path: Path, device: str, out: Path
) -> None:
    """Size, speed and fidelity of the store at 512x1024, with TEACHER on images of INDEX."""
    from pipeline.benchmarks.store import benchmark
    from stages.extract import JobFiles

    job = JobFiles(index_path, teacher_path, params_path, device)()
    with tempfile.TemporaryDirectory() as folder:
        figures = benchmark(job.index, job.teacher, job.settings, job.device, Path(folder))
    report(figures, out)


@command.command("extract", cls=StageCommand)
@index_argument
@teacher_argument
@params_option
@device_option
@out_option
def benchmark_extract(
    index_path: Path, teacher_path: Path, params_path: Path, device: str, out: Path
) -> None:
    """Extraction of 32 views at 256x512 over the bare forward of TEACHER."""
    from pipeline.benchmarks.extract import benchmark
    from stages.extract import JobFiles

    job = JobFiles(index_path, teacher_path, params_path, device)()
    with tempfile.TemporaryDirectory() as folder:
        figures = benchmark(job.index, job.teacher, job.settings, job.device, Path(folder))
    report(figures, out)


if __name__ == "__main__":
    command()
