"""Stage 6: one student on the validation split at full size."""

import time
from pathlib import Path

import click

from pipeline.config.params import load_params
from pipeline.datasets.index import Index
from pipeline.evaluation.evaluate import evaluate, summarise
from pipeline.models.students import load_student
from pipeline.runtime.device import pick_device
from pipeline.runtime.distributed import joined
from stages.command import (
    PATH,
    StageCommand,
    destination_argument,
    device_option,
    index_argument,
    measure_precision,
    params_option,
)
from stages.progress import progress
from stages.work import remove_recorded
from store.files import write_json


@click.command("evaluate", cls=StageCommand)
@index_argument
@click.argument("student_path", metavar="STUDENT", type=PATH)
@destination_argument
@click.option("--split", default="val", show_default=True, help="train, val or test.")
@params_option
@device_option
def command(
    index_path: Path,
    student_path: Path,
    destination: Path,
    split: str,
    params_path: Path,
    device_name: str,
) -> None:
    """Write the figures of STUDENT on a split of INDEX to DESTINATION (JSON).

    Of the parameters only the names of architectures count: code that they name may be imported.
    """
    remove_recorded()
    index = Index.read(index_path)
    if split not in index.splits:
        found = ", ".join(index.splits)
        raise ValueError(f"--split: {index.name} has no {split}; expected one of {found}")
    device = pick_device(device_name)
    named = load_params(params_path).architectures if params_path.exists() else ()
    student, precision = load_student(student_path, named)
    student.to(device)
    measure_precision(precision, device, "training.precision")
    start = time.perf_counter()
    title, total = f"{student_path.parent.name} on {split}", len(index.splits[split])
    with joined(device) as ranks, progress(title, -(-total // ranks.size), "images") as advance:
        confusion = evaluate(student, index, split, device, precision, advance, ranks)
    if not ranks.is_main:
        return
    seconds = round(time.perf_counter() - start, 2)
    figures = summarise(confusion)
    write_json({"split": split, "seconds": seconds, **figures}, destination)
    click.echo(f"{student_path.parent.name}: {split} mIoU {figures['miou']}")


if __name__ == "__main__":
    command()
