"""Stage 5: train one student from the store alone; no teacher in this process."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import click

from pipeline.config.params import Params, load_params
from pipeline.config.weights import hash_network_files
from stages.command import (
    PATH,
    StageCommand,
    ahead_option,
    complete_manifest,
    complete_student,
    device_option,
    follow_training,
    measure_precision,
    params_option,
    pick_student,
    tensorboard_option,
    workers_option,
)
from stages.progress import say
from stages.work import describe_settings, finish_work, same_views, work_folder
from store.files import replace_file, write_json
from store.manifest import Manifest


def read_gb(context: click.Context, option: click.Parameter, gb: float | None) -> int | None:
    """Convert GB to bytes."""
    if gb is None:
        return None
    if not isfinite(gb * 10**9):
        raise click.BadParameter(f"expected a number of GB; found {gb}")
    return int(gb * 10**9)


@click.command(
    "train",
    cls=StageCommand,
    example="cirkd train r18_cirkd artifacts/manifests/scenes.json "
    "artifacts/profiles/scenes/students/r18_cirkd",
)
@click.argument("run", required=False, shell_complete=complete_student)
@click.argument(
    "manifest_path",
    metavar="[MANIFEST]",
    required=False,
    type=PATH,
    shell_complete=complete_manifest,
)
@click.argument("destination", required=False, type=PATH)
@params_option
@device_option
@workers_option
@ahead_option
@tensorboard_option
@click.option(
    "--all",
    "every_run",
    is_flag=True,
    help="Bring every student of params.yaml up to date, over the store of `dvc repro audit`; "
    "no arguments.",
)
@click.option(
    "--jobs",
    "num_jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --all: how many train at a time, each on a GPU of its own while there are enough.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CIRKD_CACHE",
    show_envvar=True,
    help="Folder that keeps local copies of what is read of a store at a URL.",
)
@click.option(
    "--cache-gb",
    "cache_bytes",
    type=click.FloatRange(min=0),
    envvar="CIRKD_CACHE_GB",
    show_envvar=True,
    help="What all copies in it may take; those used longest ago give way. Without it, no bound.",
    callback=read_gb,
)
def command(
    run: str | None,
    manifest_path: Path | None,
    destination: Path | None,
    params_path: Path,
    device_name: str,
    num_workers: int,
    ahead_bytes: int,
    tensorboard: Path | None,
    cache: Path | None,
    cache_bytes: int | None,
    every_run: bool,
    num_jobs: int,
) -> None:
    """Train the student RUN of params.yaml on the store behind MANIFEST.

    DESTINATION, a folder, gets model.pt, log.jsonl and run.json.
    """
    from pipeline.distillation.requirements import check_requirements
    from pipeline.models.flops import count_forward_flops
    from pipeline.models.students import build_student, save_student, stored_classes
    from pipeline.runtime.device import pick_device
    from pipeline.runtime.distributed import joined
    from pipeline.runtime.environment import peak_memory_bytes
    from pipeline.training.run import Resources, describe_run
    from pipeline.training.student import student_run

    params = load_params(params_path)
    if every_run:
        train_every(params, click.get_current_context().params)
    if num_jobs > 1:
        raise click.UsageError("--jobs goes with --all")
    if run is None or manifest_path is None or destination is None:
        raise click.UsageError("give RUN MANIFEST DESTINATION, or --all")
    settings = pick_student(params, run)
    expected = Manifest.read(manifest_path)
    reader = expected.open(cache, cache_bytes)
    check_requirements(settings, reader.spec, reader.path)
    classes = stored_classes(reader.spec)
    device = pick_device(device_name)
    student = build_student(settings, reader.spec.num_classes).to(device)
    num_flops = count_forward_flops(student, reader.spec.height, reader.spec.width)
    cost = measure_precision(settings.training.precision, device, "training.precision")
    store = [expected.fingerprint, expected.digest]
    weights = hash_network_files(settings.architecture, settings.encoder_weights)
    identity = [str(destination), device.type, describe_settings(settings), weights, store]
    work = work_folder("student", identity)
    with joined(device) as ranks:
        header = {
            "run": run,
            "store": expected.fingerprint,
            "label": settings.label,
            "ranks": ranks.size,
            **describe_run(settings, device, cost),
        }
        scalars = tensorboard and tensorboard / f"{run}-{work.name}"
        resources = Resources(work, num_workers, ahead_bytes, ranks, scalars)
        seconds = follow_training(student_run(run, student, settings, reader, header, resources))
    if not ranks.is_main:
        return
    # What was measured of the student before this one.
    (destination / "evaluation.json").unlink(missing_ok=True)
    save_student(student, settings, classes, destination / "model.pt")
    summary = {
        **header,
        "num_parameters": student.num_parameters,
        "num_flops": num_flops,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    write_json(summary, destination / "run.json")
    replace_file(destination / "log.jsonl", (work / "log.jsonl").read_bytes())
    finish_work(work, destination / "model.pt")
    say(f"student {run}: {settings.training.steps} steps in {seconds:.0f} s")


def train_every(params: Params, asked: Mapping[str, Any]) -> NoReturn:
    """Train every student, several at a time; exit code 1 if any failed, 3 if interrupted.

    Args:
        params: params.yaml.
        asked: the parameters of the command.

    Raises:
        FileNotFoundError: there is no store that was looked at.
    """
    from pipeline.runtime.device import pick_slots
    from stages.many import exit_code, train_all

    if asked["run"] is not None or asked["params_path"] != Path("params.yaml"):
        raise click.UsageError("--all trains every student of params.yaml; no arguments")
    manifest = Path("artifacts/manifests", f"{params.store.name}.json")
    if not (audit := manifest.with_suffix(".audit.json")).is_file():
        raise FileNotFoundError(f"{audit}: no store yet; `dvc repro audit` makes it")
    if not same_views(params, Manifest.read(manifest).open().spec.identity):
        click.echo(
            f"warning: {manifest}: a store of other views or encodings than params.yaml has; "
            "`dvc repro audit` makes that one",
            err=True,
        )
    options = {
        "CIRKD_WORKERS": asked["num_workers"],
        "CIRKD_AHEAD_MB": asked["ahead_bytes"] // 10**6,
        "CIRKD_TENSORBOARD": asked["tensorboard"],
        "CIRKD_CACHE": asked["cache"],
        "CIRKD_CACHE_GB": asked["cache_bytes"] and asked["cache_bytes"] / 10**9,
    }
    given = {name: str(value) for name, value in options.items() if value is not None}
    done = train_all(
        list(params.students), asked["num_jobs"], pick_slots(asked["device_name"]), given
    )
    raise SystemExit(exit_code(done))


if __name__ == "__main__":
    command()
