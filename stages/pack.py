"""`cirkd pack`: a student as one folder or zip that others can load."""

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages.command import PATH, StageCommand, params_option
from stages.inference import named_architectures
from stages.progress import say
from store.files import reading
from store.manifest import Manifest

if TYPE_CHECKING:
    from pipeline.models.students import Student


@click.command(
    "pack",
    cls=StageCommand,
    example="cirkd pack artifacts/profiles/scenes/students/r18_cirkd/model.pt -o student.zip",
)
@click.argument("student_path", metavar="STUDENT", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Folder, or a file that ends in .zip.")
@click.option(
    "--manifest", "manifest_path", type=PATH, help="Of its store: names teacher and data."
)
@click.option(
    "--onnx/--no-onnx", default=True, show_default=True, help="Add ONNX where it can be exported."
)
@params_option
def command(
    student_path: Path, out: Path, manifest_path: Path | None, onnx: bool, params_path: Path
) -> None:
    """Write STUDENT with a model card; run.json and evaluation.json beside it are read."""
    from pipeline.models.card import write_card
    from pipeline.models.pack import CARD, GRAPH, write_pack
    from pipeline.models.students import describe_classes, load_student, read_saved

    student = load_student(student_path, named_architectures(params_path))
    saved = read_saved(student_path)
    run, evaluation = (_read(student_path.with_name(f"{x}.json")) for x in ("run", "evaluation"))
    identity = {}
    if manifest_path is not None:
        manifest = Manifest.read(manifest_path)
        if (store := run.get("store", manifest.fingerprint)) != manifest.fingerprint:
            raise ValueError(
                f"--manifest {manifest_path}: expected that of store {store}, which {student_path} "
                f"learned from; found {manifest.fingerprint}"
            )
        identity = dict(manifest.open().spec.identity)
    card = write_card(student.network, student.classes.names, run, evaluation, identity)
    extra = {CARD: card.encode()}
    if onnx and (graph := _export(student)) is not None:
        extra[GRAPH] = graph
    preprocessing = student.network.preprocessing.describe()
    described = {**describe_classes(student.classes), "preprocessing": preprocessing}
    write_pack({**saved, **described}, extra, out)
    say(f"{out}: {', '.join(sorted(extra))} and the student")


def _read(path: Path) -> dict[str, Any]:  # JSON
    """Read a file of JSON beside a student, if there is one."""
    if not path.exists():
        return {}
    with reading(path, "a table in JSON", "move it away, and the card goes without it"):
        return dict(json.loads(path.read_bytes()))


def _export(student: "Student") -> bytes | None:
    """Return the student as ONNX; None, and on stderr why, where that cannot be."""
    from pipeline.models.export import TOLERANCE, compare, export_student
    from pipeline.models.pack import GRAPH

    if find_spec("onnxruntime") is None:
        click.echo("no ONNX in the pack: pip install '.[export]' adds it", err=True)
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / GRAPH
        try:
            export_student(student, path, path.suffix, None)
            differences = [x.difference for x in compare(student, path, path.suffix, None)]
        except ValueError as error:
            click.echo(f"no ONNX in the pack: {error}", err=True)
            return None
        if not all(x <= TOLERANCE for x in differences):  # nan, too
            click.echo(f"no ONNX in the pack: its logits differ by {max(differences)}", err=True)
            return None
        return path.read_bytes()


if __name__ == "__main__":
    command()
