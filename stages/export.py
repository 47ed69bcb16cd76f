"""`cirkd export`: a student as a graph that runs without this project."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from stages.command import PATH, StageCommand, params_option
from stages.inference import named_architectures, parse_size
from stages.progress import progress_of_total, say
from store.files import replacing
from store.manifest import Manifest
from store.metrics import mean_iou

if TYPE_CHECKING:
    from pipeline.datasets.index import Index
    from pipeline.models.export import Size
    from pipeline.models.students import Student


def _size(context: click.Context, option: click.Parameter, text: str | None) -> "Size | None":
    return None if text is None else parse_size(text)


@click.command(
    "export",
    cls=StageCommand,
    example="cirkd export artifacts/profiles/scenes/students/r18_cirkd/model.pt -o model.onnx",
)
@click.argument("student_path", metavar="STUDENT", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="File: .onnx, or .pt2 of torch.export.")
@click.option(
    "--size", callback=_size, metavar="HxW", help="Take images of one size; without it, of any."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    show_default="1e-3",
    help="Largest difference of a logit from torch's; above it no file is left.",
)
@click.option("--int8", is_flag=True, help="Quantise to 8 bits; needs --manifest and --index.")
@click.option(
    "--manifest", "manifest_path", type=PATH, help="Of the store whose images calibrate --int8."
)
@click.option("--index", "index_path", type=PATH, help="Of the dataset whose val measures --int8.")
@click.option(
    "--records",
    "num_records",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Records of the store that calibrate --int8.",
)
@params_option
def command(
    student_path: Path,
    out: Path,
    size: "Size | None",
    tolerance: float | None,
    int8: bool,
    manifest_path: Path | None,
    index_path: Path | None,
    num_records: int,
    params_path: Path,
) -> None:
    """Write STUDENT as a graph: uint8 RGB [N, H, W, 3] to logits and classes at the image's size.

    The graph is compared with torch at several sizes before the file appears.
    """
    from pipeline.datasets.classes import check_classes
    from pipeline.datasets.index import Index
    from pipeline.models.export import SUFFIXES, TOLERANCE, export_student, quantise
    from pipeline.models.students import load_student

    if out.suffix not in SUFFIXES:
        raise click.UsageError(f"--out: expected {' or '.join(SUFFIXES)}; found {out.name}")
    if int8 and out.suffix != ".onnx":
        raise click.UsageError("--int8: expected an .onnx")
    if {manifest_path is not None, index_path is not None} != {int8}:
        raise click.UsageError("--int8, --manifest and --index: expected all of them or none")
    index = None if index_path is None else Index.read(index_path)
    student = load_student(student_path, named_architectures(params_path))
    if index is not None:
        names = student.classes.names
        check_classes(str(student_path), names, index.class_names, "give an index of its dataset")
    if size is not None and manifest_path is not None and index is not None:
        _check_sizes(size, manifest_path, index)
    with tempfile.TemporaryDirectory() as folder, replacing(out) as partial:
        graph = Path(folder) / "float32.onnx" if int8 else partial
        export_student(student, graph, out.suffix, size)
        _check(student, graph, out.suffix, size, TOLERANCE if tolerance is None else tolerance)
        if manifest_path is not None and index is not None:
            quantise(graph, _read_images(manifest_path, num_records), partial)
            _measure({"float32": graph, "int8": partial}, index)
        num_bytes = partial.stat().st_size
    say(f"{out}: {num_bytes / 1e6:.2f} MB")


def _check(
    student: "Student", path: Path, suffix: str, size: "Size | None", tolerance: float
) -> None:
    """Print how the graph agrees with torch.

    Raises:
        ValueError: a logit differs by more than the tolerance.
    """
    from pipeline.models.export import compare

    differences = []
    for found in compare(student, path, suffix, size):
        say(
            f"{found.size[0]}x{found.size[1]}: largest difference of a logit "
            f"{found.difference:.1e}, same class at {found.equal:.2%} of the pixels"
        )
        differences.append(found.difference)
    if not all(x <= tolerance for x in differences):  # nan, too
        raise ValueError(
            f"the graph's logits differ from torch's by up to {max(differences):.1e}; expected at "
            f"most {tolerance:.1e} (--tolerance); nothing was written; --size HxW may help"
        )


def _check_sizes(size: "Size", manifest_path: Path, index: "Index") -> None:
    """Refuse a graph of one size that can be neither calibrated nor measured.

    Raises:
        ValueError: the store's views, or images of val, have another size.
    """
    spec = Manifest.read(manifest_path).open().spec
    sizes = {(spec.height, spec.width), *((x.height, x.width) for x in index.splits["val"])}
    if others := sorted(sizes - {size}):
        height, width = others[0]
        raise ValueError(
            f"--int8 --size {size[0]}x{size[1]}: expected the size of all views and val images, "
            f"which calibrate and measure it; found {height}x{width}; leave out --int8, or --size"
        )


def _read_images(manifest_path: Path, num_records: int) -> Iterator[NDArray[np.uint8]]:
    """Read images of a store, evenly spread over it: uint8 [1, H, W, 3] each."""
    reader = Manifest.read(manifest_path).open()
    total = reader.spec.num_records
    for record in np.linspace(0, total - 1, min(num_records, total), dtype=int):
        image = reader.read([int(record)], ["image"])["image"]
        yield np.ascontiguousarray(image.transpose(0, 2, 3, 1))


def _measure(graphs: dict[str, Path], index: "Index") -> None:
    """Print the mIoU of each graph on val."""
    import torch

    from pipeline.evaluation.evaluate import evaluate
    from pipeline.evaluation.inference import Inference
    from pipeline.models.onnx_network import OnnxNetwork

    cpu = torch.device("cpu")
    for name, path in graphs.items():
        with progress_of_total(f"{name} on val", "images") as show:
            confusion = evaluate(OnnxNetwork(path, cpu), index, "val", cpu, Inference(), show)
        say(f"{name}: val mIoU {mean_iou(confusion):.4f}")


if __name__ == "__main__":
    command()
