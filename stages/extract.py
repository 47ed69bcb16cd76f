"""Stage 3: the teacher once over every view of every training image, into the store."""

import json
from pathlib import Path

import click

from pipeline.datasets.index import Index
from pipeline.extraction import extract, plan_store
from pipeline.params import load_params
from pipeline.teacher import load_teacher
from stages.command import (
    Interruption,
    StageCommand,
    device_option,
    params_option,
    pick_device,
)
from stages.progress import progress
from store.writer import Writer


@click.command("extract", cls=StageCommand)
@click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("teacher_path", metavar="TEACHER", type=click.Path(path_type=Path))
@click.argument("destination", metavar="MANIFEST", type=click.Path(path_type=Path))
@params_option
@device_option
@click.option(
    "--stores",
    type=click.Path(path_type=Path),
    default=Path("artifacts/stores"),
    show_default=True,
    help="Folder the store is made in, under its fingerprint.",
)
def command(
    index_path: Path,
    teacher_path: Path,
    destination: Path,
    params_path: Path,
    device: str,
    stores: Path,
) -> None:
    """Run TEACHER over INDEX into a store, and write its MANIFEST when it is complete.

    A killed run goes on at the first unit that is missing.
    """
    settings = load_params(params_path).store
    index = Index.read(index_path)
    place = pick_device(device)
    teacher = load_teacher(teacher_path, len(index.class_names)).to(place)
    sha256 = json.loads(teacher_path.with_suffix(".json").read_text())["sha256"]
    spec = plan_store(index, settings, sha256, place)
    with Interruption() as stop, Writer.open(stores / spec.fingerprint, spec) as writer:
        done = spec.num_records - sum(len(spec.unit_records(u)) for u in writer.missing_units())
        with progress("extract", spec.num_records, "views", done) as advance:

            def report(records: int) -> bool:
                advance(records)
                return not stop.requested

            if not extract(index, teacher, settings, writer, place, report):
                stop.exit_if_requested("every finished unit is in the store")
        manifest = writer.finish()
    manifest.write(destination)
    click.echo(f"store {spec.fingerprint}: {spec.num_records} records")


if __name__ == "__main__":
    command()
