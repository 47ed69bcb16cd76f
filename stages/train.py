"""Stage 5: train one student from the store alone; no teacher in this process."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pipeline.config.params import Params, StudentConfig, load_params
from pipeline.distillation.objective import Objective
from pipeline.distillation.requirements import check_requirements
from pipeline.loading.batch import Batch
from pipeline.loading.memory_budget import fit_prefetch
from pipeline.loading.stream import stream
from pipeline.models.network import compile_network
from pipeline.models.students import Student, build_student, save_student
from pipeline.runtime.device import pick_device, pick_slots
from pipeline.runtime.distributed import Ranks, joined
from pipeline.runtime.environment import describe_device, peak_memory_bytes, versions
from pipeline.runtime.rng import seed_torch
from pipeline.training.run import TrainingRun
from stages.command import (
    StageCommand,
    ahead_option,
    device_option,
    measure_precision,
    params_option,
    work_folder,
    workers_option,
)
from stages.loop import fit
from store.files import write_json
from store.manifest import Manifest
from store.reader import Reader, open_store


@click.command("train", cls=StageCommand)
@click.argument("run", required=False)
@click.argument(
    "manifest_path", metavar="MANIFEST", required=False, type=click.Path(path_type=Path)
)
@click.argument("destination", required=False, type=click.Path(path_type=Path))
@params_option
@device_option
@workers_option
@ahead_option
@click.option(
    "--all",
    "every_run",
    is_flag=True,
    help="Bring every student of params.yaml up to date, as `dvc repro` would; no arguments.",
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
def command(
    run: str | None,
    manifest_path: Path | None,
    destination: Path | None,
    params_path: Path,
    device_name: str,
    num_workers: int,
    ahead_mb: int,
    cache: Path | None,
    every_run: bool,
    num_jobs: int,
) -> None:
    """Train the student RUN of params.yaml on the store behind MANIFEST.

    DESTINATION, a folder, gets model.pt, log.jsonl and run.json.
    """
    known = load_params(params_path)
    if every_run:
        train_every(list(known.students), num_jobs, device_name)
    elif run is None or manifest_path is None or destination is None:
        raise click.UsageError("give RUN MANIFEST DESTINATION, or --all")
    else:
        resources = Resources(device_name, num_workers, ahead_mb * 10**6, cache)
        train_one(_pick_run(known, run), run, manifest_path, destination, resources)


@dataclass(frozen=True)
class Resources:
    """What a training may use; nothing of it changes a result on the same kind of device.

    Attributes:
        device: as given on the command line.
        num_workers: processes that read ahead.
        ahead_bytes: host memory that batches may take on their way.
        cache: folder of local copies of a store at a URL.
    """

    device: str
    num_workers: int
    ahead_bytes: int
    cache: Path | None


def train_every(runs: list[str], num_jobs: int, device_name: str) -> None:
    """Train several students at a time; exit code 1 if any failed, 3 if interrupted."""
    from stages.many import exit_code, train_all

    raise SystemExit(exit_code(train_all(runs, num_jobs, pick_slots(device_name))))


def train_one(
    settings: StudentConfig,
    run: str,
    manifest_path: Path,
    destination: Path,
    resources: Resources,
) -> None:
    """Train one student in this process, or in the processes that torchrun started."""
    manifest = Manifest.read(manifest_path)
    expected = manifest.fingerprint
    reader = open_store(manifest.path, expected=expected, cache=resources.cache)
    check_requirements(settings, reader.spec, reader.path)
    device = pick_device(resources.device)
    seed_torch(settings.seed, "student", "weights")
    num_classes = reader.spec.num_classes
    student = build_student(settings.architecture, num_classes, settings.encoder_weights).to(device)
    header: dict[str, Any] = {
        "run": run,
        "store": manifest.fingerprint,
        "device": str(device),
        "hardware": describe_device(device),
        "versions": versions(),
        "precision_cost": measure_precision(
            settings.training.precision, device, "training.precision"
        ),
        "label": settings.label,
        "params": settings.model_dump(mode="json"),
    }
    identity = [str(destination), device.type, settings.model_dump(), manifest.fingerprint]
    work = work_folder("student", identity)
    with joined(device) as ranks:
        header["ranks"] = ranks.size
        seconds = _train(student, settings, reader, work, header, resources, ranks)
    if not ranks.is_main:
        return
    save_student(student, settings, reader.spec.class_names, destination / "model.pt")
    summary = {
        **header,
        "num_parameters": sum(p.numel() for p in student.parameters()),
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    write_json(summary, destination / "run.json")
    shutil.copyfile(work / "log.jsonl", destination / "log.jsonl")
    shutil.rmtree(work)


def _pick_run(settings: Params, run: str) -> StudentConfig:
    if run not in settings.students:
        known = ", ".join(settings.students)
        raise ValueError(f"params.yaml has no student {run}; expected one of {known}")
    return settings.students[run]


def _train(
    student: Student,
    settings: StudentConfig,
    reader: Reader,
    work: Path,
    header: dict[str, Any],
    resources: Resources,
    ranks: Ranks,
) -> float:
    device = next(student.parameters()).device
    training = settings.training
    objective = Objective(student, reader.spec, settings, device, ranks)
    compile_network(student, training.compile)
    student.train()
    prefetch_factor, in_flight = fit_prefetch(
        reader.spec,
        objective.needs,
        training.micro_batch_size(ranks.size),
        resources.num_workers,
        device.type == "cuda",
        resources.ahead_bytes,
    )

    def open_batches(steps: range) -> Iterator[Batch]:
        objective.fill(reader, resumed=steps.start > 0)
        return stream(
            reader,
            seed=settings.seed,
            batch_size=training.batch_size,
            steps=steps,
            device=device,
            num_workers=resources.num_workers,
            needs=objective.needs,
            accumulate=training.accumulate,
            ranks=ranks,
            augment=training.augment,
            prefetch_factor=prefetch_factor,
        )

    return fit(
        TrainingRun(
            title=f"student {header['run']}",
            training=training,
            modules=objective.modules,
            parts=objective.parts,
            compute_terms=objective.replicated(),
            weights=objective.weights,
            open_batches=open_batches,
            begin=lambda: seed_torch(settings.seed, "student", "dropout", *ranks.path),
            work=work,
            header={**header, "in_flight_bytes": in_flight},
            name_source=lambda record: f" (records {reader.read(record.tolist(), ['key'])['key']})",
            ranks=ranks,
        )
    )


if __name__ == "__main__":
    command()
