"""`cirkd predict`: what a student sees in images that need no labels."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.datasets.classes import class_table
from stages.command import PATH, StageCommand, describe, device_option, params_option
from stages.inference import inference_options, named_architectures
from stages.progress import progress, say
from store.files import write_json

if TYPE_CHECKING:
    from pipeline.evaluation.inference import Inference


SHARES = "shares.json"
"""Written first: what lies beside it are predictions, which others may take the place of."""


@click.command(
    "predict",
    cls=StageCommand,
    example="cirkd predict artifacts/profiles/scenes/students/r18_cirkd/model.pt photos -o out",
)
@click.argument("student_path", metavar="STUDENT", type=PATH)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "-o", "--out", "folder", type=PATH, required=True, help="Folder for everything that is made."
)
@click.option(
    "--ids", is_flag=True, help="Label files hold the dataset's label ids, not class numbers."
)
@inference_options
@params_option
@device_option
def command(
    student_path: Path,
    sources: tuple[str, ...],
    folder: Path,
    ids: bool,
    infer: "Callable[[str], Inference]",
    params_path: Path,
    device_name: str,
) -> None:
    """Predict every SOURCE with STUDENT: model.pt, a pack, or an exported .onnx.

    A SOURCE is an image, a folder, a pattern ('in/**/*.jpg') or a .txt list of images. Label files,
    colours and overlays get the size and the name of the image. Images above 4 megapixels are
    predicted in windows of 1024 unless --window gives another.
    """
    from pipeline.evaluation.pictures import Pictures, count_shares, predict_file
    from pipeline.evaluation.predictor import load_predictor
    from pipeline.evaluation.sources import list_sources
    from pipeline.runtime.device import pick_device

    device = pick_device(device_name)
    images = list_sources(sources, folder)
    named = named_architectures(params_path)
    predictor, precision, classes = load_predictor(student_path, device, named)
    table = classes if ids else class_table(classes.names, classes.palette)
    pictures, inference = Pictures(folder, table), infer(precision)
    there = [path for name in images for path in pictures.paths(name) if path.exists()]
    if there and not (folder / SHARES).exists():
        raise ValueError(f"{there[0]}: is there, and no prediction; name another folder with -o")
    if there:
        click.echo(f"{folder}: {len(there)} files of predictions are overwritten", err=True)
    write_json({"all": {}, "images": {}}, folder / SHARES)
    counts: dict[str, np.ndarray] = {}
    failures = []
    with progress("predict", len(images), "images") as advance:
        for name, path in images.items():
            try:
                image, predicted = predict_file(predictor, path, inference, device)
            except (OSError, ValueError) as error:
                failures.append(f"{name}: {describe(error)}")
            else:
                pictures.write(name, image, predicted)
                counts[name] = np.bincount(predicted.ravel(), minlength=len(table.names))
            advance()
    total = sum(counts.values(), np.zeros(len(table.names), np.int64))
    shares = count_shares(total, classes.names)
    by_image = {name: count_shares(counted, classes.names) for name, counted in counts.items()}
    if counts:
        write_json({"all": shares, "images": by_image}, folder / SHARES)
        pictures.write_legend([*shares.values()])
    say(f"{folder}: {len(counts)} of {len(images)} images predicted")
    if failures:
        raise click.ClickException("\n".join(("not predicted:", *failures)))


if __name__ == "__main__":
    command()
