"""`cirkd benchmark`: figures as ratios, measured side by side in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.config.architectures import find_architecture
from stages.command import (
    PATH,
    StageCommand,
    device_option,
    follow_extraction,
    job_files,
    params_option,
    workers_option,
)
from stages.inference import named_architectures, parse_size
from stages.progress import is_quiet, progress_of_total
from store.files import write_json

if TYPE_CHECKING:
    from pipeline.extraction.job import Extraction
    from pipeline.extraction.load import JobFiles

out_option = click.option("--out", type=PATH, required=True, help="JSON file for the figures.")


@click.group("benchmark")
def command() -> None:
    """Measure losses, store, extraction and training on this machine."""


def report(figures: dict[str, Any], out: Path) -> None:
    """Write the figures and print them."""
    write_json(figures, out)
    show(figures)


def report_each(measured: Iterable[dict[str, Any]], out: Path) -> None:
    """Write what has been measured each time it is more, and print the last."""
    figures: dict[str, Any] = {}
    for figures in measured:
        write_json(figures, out)
    show(figures)


def show(figures: dict[str, Any], indent: str = "") -> None:
    """Print a line a figure, groups of them under their names."""
    for name, value in figures.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}")
            show(value, indent + "  ")
        else:
            text = f"{value:.4g}" if isinstance(value, float) else value
            click.echo(f"{indent}{name:24} {text}")


def show_progress(line: str) -> None:
    """Say on stderr what is measured next."""
    if not is_quiet():
        click.echo(line, err=True)


@command.command(
    "portable",
    cls=StageCommand,
    example="cirkd benchmark portable --out portable.json",
)
@out_option
@click.option("--suite/--no-suite", default=True, show_default=True, help="Time `pytest`, too.")
def benchmark_portable(out: Path, suite: bool) -> None:
    """Measure what README's two commands cost here, in operations; run it in a fresh clone."""
    from subprocess import CalledProcessError

    from pipeline.benchmarks.portable import benchmark

    figures: dict[str, object] = {}
    try:
        for figures in benchmark(Path.cwd(), suite):
            write_json(figures, out)
    except CalledProcessError as error:
        kept = f"{out} has what came before it" if figures else "nothing was measured"
        raise click.ClickException(f"{error}; {kept}") from None
    show(figures)


@command.command("losses", cls=StageCommand, example="cirkd benchmark losses --out losses.json")
@out_option
def benchmark_losses(out: Path) -> None:
    """Time and peak memory of the fused relational losses against plain autograd."""
    from pipeline.benchmarks.losses import benchmark

    report(benchmark(), out)


@command.command(
    "store",
    cls=StageCommand,
    example="cirkd benchmark store artifacts/datasets/scenes/index.json "
    "artifacts/teachers/scenes.pt --out store.json",
)
@job_files
@out_option
def benchmark_store(files: JobFiles, out: Path) -> None:
    """Measure size, speed, precision of the store at 512x1024, with TEACHER on images of INDEX."""
    from pipeline.benchmarks.store import benchmark

    _with_teacher(benchmark, files, out)


@command.command(
    "extract",
    cls=StageCommand,
    example="cirkd benchmark extract artifacts/datasets/scenes/index.json "
    "artifacts/teachers/scenes.pt --out extract.json",
)
@job_files
@out_option
def benchmark_extract(files: JobFiles, out: Path) -> None:
    """Time extraction of 32 views at 256x512 over the bare forward of TEACHER."""
    from pipeline.benchmarks.extract import benchmark

    _with_teacher(benchmark, files, out)


@command.command(
    "subspace",
    cls=StageCommand,
    example="cirkd benchmark subspace artifacts/datasets/scenes/index.json "
    "artifacts/teachers/scenes.pt --out subspace.json",
)
@job_files
@out_option
@click.option("--views", "num_views", type=click.IntRange(min=2), default=128, show_default=True)
def benchmark_subspace(files: JobFiles, out: Path, num_views: int) -> None:
    """Measure similarities lost and bytes saved by the rank of a subspace of TEACHER's features."""
    from pipeline.benchmarks.subspace import benchmark

    with progress_of_total("find the subspace", "views") as bar:
        found = benchmark(files.load_whole(), num_views, bar)
    report(found, out)


@command.command("scale", cls=StageCommand, example="cirkd benchmark scale --out scale.json")
@out_option
def benchmark_scale(out: Path) -> None:
    """Time units of 1, 8 and 32 workers with tiny views, and resuming at 100 000 units."""
    from pipeline.benchmarks.scale import benchmark

    with tempfile.TemporaryDirectory() as folder:
        report_each(benchmark(Path(folder)), out)


def check_architectures(
    context: click.Context, option: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a name of no network."""
    for name in names:
        try:
            find_architecture(name)
        except ValueError as error:
            raise click.BadParameter(f"{error}; found {name}") from None
    return names


@command.command(
    "step",
    cls=StageCommand,
    example="cirkd benchmark step --out step.json --student deeplabv3_resnet18",
)
@out_option
@device_option
@workers_option
@click.option("--rounds", "num_rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--student",
    "students",
    multiple=True,
    help="Architecture, as in params.yaml; default: the paper's.",
    callback=check_architectures,
)
@click.option(
    "--rank",
    type=click.IntRange(1, 256),
    help="Of a subspace that features are stored in.  [default: all channels]",
)
def benchmark_step(
    out: Path,
    device_name: str,
    num_workers: int,
    num_rounds: int,
    students: tuple[str, ...],
    rank: int | None,
) -> None:
    """Time a step from the store over one with labels alone and one with the teacher in it.

    256x512, batch 2 on a CPU; 512x1024, batch 16 on a GPU; random weights, images and labels.
    """
    from pipeline.benchmarks.sizes import default_sizes
    from pipeline.benchmarks.step import STUDENTS, benchmark
    from pipeline.runtime.device import pick_device

    device = pick_device(device_name)
    with tempfile.TemporaryDirectory() as folder:
        measured = benchmark(
            replace(default_sizes(device), rank=rank),
            device,
            Path(folder),
            students=students or STUDENTS,
            num_workers=num_workers,
            num_rounds=num_rounds,
            progress=show_progress,
        )
        report_each(measured, out)


@command.command(
    "amortise",
    cls=StageCommand,
    example="cirkd benchmark amortise artifacts/profiles/scenes",
)
@click.argument("profile", type=PATH)
@click.option("--out", type=PATH, help="JSON file.  [default: PROFILE/amortise.json]")
@params_option
@device_option
@workers_option
def benchmark_amortise(
    profile: Path, out: Path | None, params_path: Path, device_name: str, num_workers: int
) -> None:
    """Find how many students it takes until the store of PROFILE has paid for its extraction.

    PROFILE is artifacts/profiles/NAME, finished by `dvc repro`. The page shows the figures once
    they lie at their default place: `dvc repro -f -s report` draws it again.
    """
    from pipeline.benchmarks.amortise import benchmark
    from pipeline.config.params import load_params
    from pipeline.extraction.load import JobFiles
    from pipeline.report.results import gather
    from pipeline.runtime.device import pick_device
    from store.manifest import Manifest

    params = load_params(params_path)
    results = gather(profile, params)
    artifacts = profile.parent.parent
    manifest = Manifest.read(artifacts / "manifests" / f"{params.store.name}.json")
    files = JobFiles(
        artifacts / "datasets" / params.dataset.name / "index.json",
        artifacts / "teachers" / f"{params.teacher.name}.pt",
        params_path,
        device_name,
    )
    found = benchmark(
        results,
        manifest.open(),
        files.load,
        pick_device(device_name),
        num_workers=num_workers,
    )
    report(found.to_dict(), out or profile / "amortise.json")
    click.echo(
        "seconds of n students    " + "".join(f"{variant:>10}" for variant in found.student_s)
    )
    for num_students in (1, 2, 4, 8, 16):
        costs = (f"{found.total_s(variant, num_students):10.0f}" for variant in found.student_s)
        click.echo(f"{num_students:>24} " + "".join(costs))


def read_views(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """Read `1,2,4` into sorted numbers."""
    parts = value.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"expected counts like 1,2,4; found {value}")
    return tuple(sorted({int(part) for part in parts}))


@command.command(
    "num-views",
    cls=StageCommand,
    example="cirkd benchmark num-views artifacts/datasets/scenes/index.json "
    "artifacts/teachers/scenes.pt --views 1,2,4 --out views.json",
)
@job_files
@out_option
@workers_option
@click.option("--seeds", "num_seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--views", default="1,2,4,8", show_default=True, callback=read_views)
@click.option("--steps", type=click.IntRange(min=1), help="Of each student; default: as in params.")
@click.option(
    "--case",
    "only",
    multiple=True,
    help="One of the table's rows, cirkd-online say.  [default: all]",
)
def benchmark_num_views(
    files: JobFiles,
    out: Path,
    num_workers: int,
    num_seeds: int,
    views: tuple[int, ...],
    steps: int | None,
    only: tuple[str, ...],
) -> None:
    """Compare students of 1, 2, 4, .. stored views with those of fresh crops, TEACHER online.

    The store and every finished run are kept in a folder beside --out, so a killed benchmark goes
    on where it stopped; delete the folder when done.
    """
    import torch

    from pipeline.benchmarks.num_views import benchmark, pick_cases, with_views
    from pipeline.benchmarks.trainer import pick_cirkd
    from pipeline.config.params import load_params

    pick_cases(views, only)
    params = load_params(files.params)
    run = params.students[pick_cirkd(params)]
    if run.distillation.memory == "bank":
        raise ValueError(
            "distillation.memory: expected queue, found bank, which holds all of a store at once, "
            "and an online run has no store; measure a student with queues"
        )
    if steps is not None:
        run = run.model_copy(update={"training": run.training.model_copy(update={"steps": steps})})
    job = with_views(files.load(), max(views))
    folder, threads = out.with_name(f"{out.stem}-files"), torch.get_num_threads()
    manifest = follow_extraction(job, folder / job.spec.fingerprint)
    torch.set_num_threads(threads)  # extraction has a number of its own
    figures = benchmark(
        job,
        manifest.open(),
        run,
        folder,
        views=views,
        only=only,
        num_seeds=num_seeds,
        num_workers=num_workers,
        progress=show_progress,
    )
    write_json({"steps": run.training.steps, "cases": figures}, out)
    click.echo(f"{'val mIoU, %':24} {'mean':>8} {'+-':>6} {'seconds':>8}")
    for name, found in figures.items():
        deviation = found["miou_deviation"]
        spread = "-" if deviation is None else f"{100 * deviation:.2f}"
        click.echo(f"{name:24} {100 * found['miou']:8.2f} {spread:>6} {found['seconds']:8.1f}")


def read_sizes(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> list[tuple[int, int]]:
    """Read sizes such as 512x1024."""
    return [parse_size(text) for text in texts]


@command.command(
    "inference",
    cls=StageCommand,
    example="cirkd benchmark inference --out inference.json "
    "artifacts/profiles/scenes/students/r18_cirkd/model.pt",
)
@click.argument("paths", metavar="STUDENT...", nargs=-1, required=True, type=PATH)
@out_option
@click.option(
    "--size",
    "sizes",
    multiple=True,
    default=("256x512", "512x1024"),
    show_default=True,
    callback=read_sizes,
    help="Height and width of images; may be given again.",
)
@click.option("--rounds", "num_rounds", type=click.IntRange(min=1), default=5, show_default=True)
@params_option
@device_option
def benchmark_inference(
    paths: tuple[Path, ...],
    out: Path,
    sizes: list[tuple[int, int]],
    num_rounds: int,
    params_path: Path,
    device_name: str,
) -> None:
    """Time predictions of each STUDENT, by torch and, where it is, onnxruntime."""
    from pipeline.benchmarks.inference import benchmark
    from pipeline.models.students import load_student
    from pipeline.runtime.device import pick_device

    named = named_architectures(params_path)
    students = {str(path): load_student(path, named) for path in paths}
    device = pick_device(device_name)
    report_each(benchmark(students, sizes, device, num_rounds, show_progress), out)


def _with_teacher(
    benchmark: Callable[[Extraction, Path], dict[str, float]], files: JobFiles, out: Path
) -> None:
    job = files.load()
    with tempfile.TemporaryDirectory() as folder:
        report(benchmark(job, Path(folder)), out)


if __name__ == "__main__":
    command()
