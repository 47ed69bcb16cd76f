"""Stage 6: one student on the validation split at full size."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.params import load_params
from pipeline.datasets.index import Index, Sample
from pipeline.evaluation.boundary import boundary_counts, summarise_boundaries
from pipeline.evaluation.evaluate import evaluate, summarise
from pipeline.evaluation.label_files import write_prediction
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
from stages.inference import batch_option, inference_options
from stages.progress import progress
from stages.work import remove_recorded
from store.files import write_json

if TYPE_CHECKING:
    from pipeline.evaluation.inference import Inference


@click.command("evaluate", cls=StageCommand)
@index_argument
@click.argument("student_path", metavar="STUDENT", type=PATH)
@destination_argument
@click.option("--split", default="val", show_default=True, help="train, val or test.")
@click.option(
    "--save",
    "save_folder",
    type=PATH,
    help="Folder for the predictions: PNGs in the dataset's label ids, as test servers want them.",
)
@batch_option
@inference_options
@params_option
@device_option
def command(
    index_path: Path,
    student_path: Path,
    destination: Path,
    split: str,
    save_folder: Path | None,
    infer: "Callable[[str], Inference]",
    params_path: Path,
    device_name: str,
) -> None:
    """Write the figures of STUDENT on a split of INDEX to DESTINATION (JSON).

    Of the parameters only the names of architectures count: code that they name may be imported.

    Example: cirkd evaluate artifacts/datasets/scenes/index.json
    artifacts/profiles/scenes/students/r18_ce/model.pt scores.json --scales 0.75,1,1.25 --flip
    """
    remove_recorded()
    index = Index.read(index_path)
    if split not in index.labelled_splits:
        found = ", ".join(index.labelled_splits)
        raise ValueError(f"--split: {index.name} has no {split}; expected one of {found}")
    device = pick_device(device_name)
    named = load_params(params_path).architectures if params_path.exists() else ()
    student = load_student(student_path, named)
    network, precision = student.network.to(device), student.precision
    measure_precision(precision, device, "training.precision")
    boundaries = torch.zeros(index.num_classes, 4, dtype=torch.int64, device=device)

    def observe(sample: Sample, labels: NDArray[np.uint8], classes: torch.Tensor) -> None:
        boundaries.add_(
            boundary_counts(torch.from_numpy(labels).to(device), classes, index.num_classes)
        )
        if save_folder is not None:
            write_prediction(save_folder, sample, classes.cpu().numpy(), index.classes)

    start = time.perf_counter()
    title, total = f"{student_path.parent.name} on {split}", len(index.splits[split])
    with joined(device) as ranks, progress(title, -(-total // ranks.size), "images") as advance:
        confusion = evaluate(
            network, index, split, device, infer(precision), advance, ranks, observe
        )
        met = ranks.sum(boundaries).cpu().numpy()
    if not ranks.is_main:
        return
    seconds = round(time.perf_counter() - start, 2)
    figures = {**summarise(confusion), **summarise_boundaries(met)}
    write_json({"split": split, "seconds": seconds, **figures}, destination)
    click.echo(f"{student_path.parent.name}: {split} mIoU {figures['miou']}")


if __name__ == "__main__":
    command()
