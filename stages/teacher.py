"""Stage 2: get the teacher, by training it, downloading it or loading it, and measure it."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from pipeline import params
from pipeline.datasets.index import Index
from pipeline.evaluation import evaluate, summarise
from pipeline.network import compile_network
from pipeline.params import load_params
from pipeline.provenance import device_name, versions
from pipeline.randomness import seed_torch
from pipeline.ranks import Ranks, joined
from pipeline.teacher import (
    ARCHITECTURE,
    SupervisedTerms,
    Teacher,
    TeacherCard,
    build_teacher,
    crops,
    save_teacher,
)
from stages.command import (
    StageCommand,
    device_option,
    measure_precision,
    params_option,
    pick_device,
    work_folder,
    workers_option,
)
from stages.loop import Run, fit
from stages.progress import progress
from store.files import write_json


@click.command("teacher", cls=StageCommand)
@click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@params_option
@device_option
@workers_option
def command(
    index_path: Path, destination: Path, params_path: Path, device: str, num_workers: int
) -> None:
    """Write the teacher for INDEX to DESTINATION (.pt), and its card beside it (.json)."""
    settings = load_params(params_path).teacher
    index = Index.read(index_path)
    place = pick_device(device)
    teacher = build_teacher(settings, index.num_classes).to(place)
    identity = [str(destination), place.type, settings.model_dump(), index.fingerprint]
    work = work_folder("teacher", identity)
    trains = settings.source == "train"
    precision = settings.training.precision
    cost = measure_precision(precision, place, "teacher.training.precision")
    with joined(place) as ranks:
        seconds = (
            _train(teacher, settings, index, work, num_workers, ranks, cost) if trains else 0.0
        )
    if not ranks.leads:
        return
    with progress("teacher on val", len(index.splits["val"]), "images") as advance:
        figures = summarise(evaluate(teacher, index, "val", place, precision, advance))
    card = TeacherCard(
        architecture=ARCHITECTURE,
        class_names=list(index.class_names),
        source=settings.source,
        sha256=save_teacher(teacher, destination),
        val=figures,
        num_parameters=sum(p.numel() for p in teacher.parameters()),
        seconds=seconds,
    )
    write_json(asdict(card), destination.with_suffix(".json"))
    shutil.rmtree(work, ignore_errors=True)
    click.echo(f"teacher {settings.name}: val mIoU {figures['miou']}")


def _train(
    teacher: Teacher,
    settings: params.Teacher,
    index: Index,
    work: Path,
    num_workers: int,
    ranks: Ranks,
    precision_cost: float | None,
) -> float:
    recipe = settings.training
    device = next(teacher.parameters()).device
    recipe.micro_batch_size(ranks.size)
    compile_network(teacher, recipe.compile)
    teacher.train()
    terms = SupervisedTerms(teacher, recipe.precision, ranks)
    return fit(
        Run(
            title=f"teacher {settings.name}",
            recipe=recipe,
            modules=teacher,
            parts={},
            compute_terms=ranks.replicate(terms, device),
            weights={"task": 1.0, "auxiliary": recipe.auxiliary_weight},
            open_batches=lambda steps: crops(index, settings, steps, device, num_workers, ranks),
            begin=partial(seed_torch, settings.seed, "teacher", "dropout", *ranks.path),
            work=work,
            header={
                "device": str(device),
                "hardware": device_name(device),
                "versions": versions(),
                "precision_cost": precision_cost,
                "params": settings.model_dump(mode="json"),
            },
            ranks=ranks,
        )
    )


if __name__ == "__main__":
    command()
