"""Stage 5: train one student from the store alone; no teacher in this process."""

import shutil
from pathlib import Path
from typing import Any

import click

from pipeline import params
from pipeline.objective import Objective
from pipeline.params import load_params
from pipeline.provenance import peak_memory_bytes, versions
from pipeline.randomness import seed_torch
from pipeline.stream import stream
from pipeline.students import Student, build_student, save_student
from stages.command import (
    StageCommand,
    device_option,
    params_option,
    pick_device,
    work_folder,
    workers_option,
)
from stages.loop import Run, fit
from store.files import write_json
from store.manifest import Manifest
from store.reader import Reader, open_store


@click.command("train", cls=StageCommand)
@click.argument("run")
@click.argument("manifest_path", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@params_option
@device_option
@workers_option
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CIRKD_CACHE",
    show_envvar=True,
    help="Folder that keeps local copies of what is read of a store at a URL.",
)
def command(
    run: str,
    manifest_path: Path,
    destination: Path,
    params_path: Path,
    device: str,
    num_workers: int,
    cache: Path | None,
) -> None:
    """Train the student RUN of params.yaml on the store behind MANIFEST.

    DESTINATION, a folder, gets model.pt, log.jsonl and run.json.
    """
    settings = _pick_run(load_params(params_path), run)
    manifest = Manifest.read(manifest_path)
    reader = open_store(manifest.path, expected=manifest.fingerprint, cache=cache)
    place = pick_device(device)
    seed_torch(settings.seed, "student", "weights")
    num_classes = reader.spec.num_classes
    student = build_student(settings.architecture, num_classes, settings.encoder_weights).to(place)
    header = {
        "run": run,
        "store": manifest.fingerprint,
        "device": str(place),
        "versions": versions(),
        "label": settings.label,
        "params": settings.model_dump(mode="json"),
    }
    identity = [str(destination), place.type, settings.model_dump(), manifest.fingerprint]
    work = work_folder("student", identity)
    seconds = _train(student, settings, reader, work, header, num_workers)
    save_student(student, settings, reader.spec.class_names, destination / "model.pt")
    summary = {
        **header,
        "num_parameters": sum(p.numel() for p in student.parameters()),
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(place),
    }
    write_json(summary, destination / "run.json")
    shutil.copyfile(work / "log.jsonl", destination / "log.jsonl")
    shutil.rmtree(work)


def _pick_run(settings: params.Params, run: str) -> params.Student:
    if run not in settings.students:
        known = ", ".join(settings.students)
        raise ValueError(f"params.yaml has no student {run}; expected one of {known}")
    return settings.students[run]


def _train(
    student: Student,
    settings: params.Student,
    reader: Reader,
    work: Path,
    header: dict[str, Any],
    num_workers: int,
) -> float:
    device = next(student.parameters()).device
    objective = Objective(student, reader.spec, settings, device)
    student.train()

    def begin() -> None:
        seed_torch(settings.seed, "student", "dropout")
        objective.fill(reader)

    return fit(
        Run(
            title=f"student {header['run']}",
            recipe=settings.training,
            modules=objective.modules,
            parts=objective.parts,
            compute_terms=objective.compute_terms,
            weights=objective.weights,
            open_batches=lambda steps: stream(
                reader,
                seed=settings.seed,
                batch_size=settings.training.batch_size,
                steps=steps,
                device=device,
                num_workers=num_workers,
                needs=objective.needs,
            ),
            begin=begin,
            work=work,
            header=header,
            name_source=lambda record: f" (records {reader.read(record.tolist(), ['key'])['key']})",
        )
    )


if __name__ == "__main__":
    command()
