"""Stage 2: get the teacher, by training it, downloading it or loading it, and measure it."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from pipeline.config.params import TeacherConfig, load_params
from pipeline.datasets.index import Index
from pipeline.evaluation.evaluate import evaluate, summarise
from pipeline.models.network import Network, compile_network
from pipeline.models.teacher import TeacherCard, build_teacher, save_teacher
from pipeline.runtime.device import pick_device
from pipeline.runtime.distributed import Ranks, joined
from pipeline.runtime.environment import describe_device, versions
from pipeline.runtime.rng import seed_torch
from pipeline.training.run import TrainingRun
from pipeline.training.supervised import SupervisedTerms, crops
from stages.command import (
    StageCommand,
    device_option,
    measure_precision,
    params_option,
    work_folder,
    workers_option,
)
from stages.loop import fit
from stages.progress import progress
from store.files import write_json


@click.command("teacher", cls=StageCommand)
@click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@params_option
@device_option
@workers_option
def command(
    index_path: Path, destination: Path, params_path: Path, device_name: str, num_workers: int
) -> None:
    """Write the teacher for INDEX to DESTINATION (.pt), and its card beside it (.json)."""
    settings = load_params(params_path).teacher
    index = Index.read(index_path)
    device = pick_device(device_name)
    teacher = build_teacher(settings, index.num_classes).to(device)
    identity = [str(destination), device.type, settings.model_dump(), index.fingerprint]
    work = work_folder("teacher", identity)
    trains = settings.source == "train"
    precision = settings.training.precision
    cost = measure_precision(precision, device, "teacher.training.precision")
    with joined(device) as ranks:
        seconds = (
            _train(teacher, settings, index, work, num_workers, ranks, cost) if trains else 0.0
        )
    if not ranks.is_main:
        return
    with progress("teacher on val", len(index.splits["val"]), "images") as advance:
        figures = summarise(evaluate(teacher, index, "val", device, precision, advance))
    card = TeacherCard(
        architecture=settings.architecture,
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
    teacher: Network,
    settings: TeacherConfig,
    index: Index,
    work: Path,
    num_workers: int,
    ranks: Ranks,
    precision_cost: float | None,
) -> float:
    training = settings.training
    device = next(teacher.parameters()).device
    training.micro_batch_size(ranks.size)
    compile_network(teacher, training.compile)
    teacher.train()
    terms = SupervisedTerms(teacher, training.precision, ranks)
    return fit(
        TrainingRun(
            title=f"teacher {settings.name}",
            training=training,
            modules=teacher,
            parts={},
            compute_terms=ranks.replicate(terms, device),
            weights={"task": 1.0, "auxiliary": training.auxiliary_weight},
            open_batches=lambda steps: crops(index, settings, steps, device, num_workers, ranks),
            begin=partial(seed_torch, settings.seed, "teacher", "dropout", *ranks.path),
            work=work,
            header={
                "device": str(device),
                "hardware": describe_device(device),
                "versions": versions(),
                "precision_cost": precision_cost,
                "params": settings.model_dump(mode="json"),
            },
            ranks=ranks,
        )
    )


if __name__ == "__main__":
    command()
