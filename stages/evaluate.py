"""Stage 6: one network, a student or a teacher, on the validation split at full size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.config.architectures import refuse_unnamed
from stages.command import (
    PATH,
    StageCommand,
    destination_argument,
    device_option,
    index_argument,
    json_option,
    measure_precision,
    params_option,
    print_table,
)
from stages.inference import batch_option, inference_options, named_architectures
from stages.progress import is_quiet, progress_of_total, say
from stages.work import remove_recorded
from store.files import replacing, write_json

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pipeline.datasets.index import Sample
    from pipeline.evaluation.inference import Inference
    from pipeline.models.network import Network

COLUMNS = {"IoU": "iou", "Dice": "dice", "accuracy": "accuracy", "boundary F": "boundary_f"}
"""Of the table of classes, and the figures they hold."""


@click.command(
    "evaluate",
    cls=StageCommand,
    example="cirkd evaluate artifacts/datasets/scenes/index.json "
    "artifacts/profiles/scenes/students/r18_cirkd/model.pt scores.json --scales "
    "0.75,1,1.25 --flip",
)
@index_argument
@click.argument("network_path", metavar="NETWORK", type=PATH)
@destination_argument
@click.option("--split", default="val", show_default=True, help="train, val or test.")
@click.option(
    "--save",
    "save_folder",
    type=PATH,
    help="Folder for the predictions: PNGs in the dataset's label ids, as test servers want them.",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG of the confusion matrix, each row divided by its sum.",
)
@batch_option
@inference_options
@params_option
@device_option
@json_option
def command(
    index_path: Path,
    network_path: Path,
    destination: Path,
    split: str,
    save_folder: Path | None,
    figure: Path | None,
    infer: Callable[[str], Inference],
    params_path: Path,
    device_name: str,
    as_json: bool,
) -> None:
    """Write the figures of NETWORK on a split of INDEX to DESTINATION (JSON).

    NETWORK is a student's file, or a teacher's with its card beside it, which is measured in
    float32. Of the parameters only the names of architectures count: code that they name may be
    imported.
    """
    import torch

    from pipeline.datasets.index import Index
    from pipeline.evaluation.boundary import boundary_counts, summarise_boundaries
    from pipeline.evaluation.evaluate import evaluate, summarise
    from pipeline.evaluation.label_files import write_prediction
    from pipeline.runtime.device import pick_device
    from pipeline.runtime.distributed import joined

    card = _card_of(network_path)
    if card is not None and destination.resolve() == card.resolve():
        raise click.UsageError(f"{destination} is where a teacher's card lies; name another file")
    remove_recorded()
    index = Index.read(index_path)
    if split not in index.labelled_splits:
        found = ", ".join(index.labelled_splits)
        raise ValueError(f"--split: {index.name} has no {split}; expected one of {found}")
    device = pick_device(device_name)
    named = named_architectures(params_path)
    name, network, precision = _load(network_path, index.class_names, named)
    network.to(device)
    measure_precision(precision, device, "training.precision")
    boundaries = torch.zeros(index.num_classes, 4, dtype=torch.int64, device=device)

    def observe(sample: Sample, labels: NDArray[np.uint8], classes: torch.Tensor) -> None:
        boundaries.add_(
            boundary_counts(torch.from_numpy(labels).to(device), classes, index.num_classes)
        )
        if save_folder is not None:
            write_prediction(save_folder, sample, classes.cpu().numpy(), index.classes)

    start = time.perf_counter()
    with joined(device) as ranks, progress_of_total(f"{name} on {split}", "images") as show:
        confusion = evaluate(network, index, split, device, infer(precision), show, ranks, observe)
        met = ranks.sum(boundaries).cpu().numpy()
    if not ranks.is_main:
        return
    seconds = round(time.perf_counter() - start, 2)
    figures = {**summarise(confusion), **summarise_boundaries(met)}
    scores = {"split": split, "seconds": seconds, **figures}
    write_json(scores, destination)
    if figure is not None:
        _draw(confusion, index.class_names, figure)
    if as_json:
        click.echo(json.dumps(scores, indent=2))
    elif not is_quiet():
        _print_classes(index.class_names, figures)
        say(f"{name}: {split} mIoU {figures['miou']}")


def _card_of(network: Path) -> Path | None:
    """Return where the card of a teacher lies, if the file may be a teacher's."""
    return network.with_suffix(".json") if network.suffix == ".pt" else None


def _load(
    path: Path, class_names: Sequence[str], named: Collection[str]
) -> tuple[str, Network, str]:
    """Load a network of either kind: its name, itself, and the precision it is measured in."""
    from pipeline.datasets.classes import check_classes
    from pipeline.models.students import load_student
    from pipeline.models.teacher import TeacherCard

    card = _card_of(path)
    if card is None or not card.exists():
        student = load_student(path, named)
        check_classes(str(path), student.classes.names, class_names, "give an index of its dataset")
        return path.parent.name, student.network, student.precision
    teacher = TeacherCard.read(card)
    refuse_unnamed(teacher.architecture, named, card)
    return f"teacher {path.stem}", teacher.load(path, class_names), "float32"


def _print_classes(names: Sequence[str], figures: Mapping[str, Any]) -> None:
    rows = [
        (name, *("" if value is None else f"{100 * value:.1f}" for value in values))
        for name, *values in zip(names, *(figures[key] for key in COLUMNS.values()), strict=True)
    ]
    print_table(("class, %", *COLUMNS), rows)


def _draw(confusion: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    from pipeline.report.confusion_figure import draw_confusion

    with replacing(path) as partial:
        draw_confusion(confusion, names).savefig(partial, dpi=110, format="png")


if __name__ == "__main__":
    command()
