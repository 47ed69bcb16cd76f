"""Stage 3: the teacher once over every view of every training image, into the store."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.datasets.index import Index
from pipeline.extraction import Extraction, extract, plan_store
from pipeline.params import load_params
from pipeline.teacher import TeacherCard, load_teacher
from stages.command import (
    Interruption,
    StageCommand,
    device_option,
    params_option,
    pick_device,
)
from stages.progress import progress
from store.files import write_json
from store.manifest import Manifest
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
    job = load_job(index_path, teacher_path, params_path, device)
    start = time.perf_counter()
    manifest = fill(job, stores / job.spec.fingerprint)
    # Of this call: views that an interrupted one left are not in it.
    write_json(
        {"seconds": round(time.perf_counter() - start, 2)}, destination.with_suffix(".extract.json")
    )
    manifest.write(destination)
    click.echo(f"store {manifest.fingerprint}: {manifest.num_records} records")


def load_job(index_path: Path, teacher_path: Path, params_path: Path, device: str) -> Extraction:
    """Load what the command line names."""
    settings = load_params(params_path).store
    index = Index.read(index_path)
    place = pick_device(device)
    teacher = load_teacher(teacher_path, len(index.class_names)).to(place)
    sha256 = TeacherCard.read(teacher_path.with_suffix(".json")).sha256
    spec = plan_store(index, settings, sha256, place)
    return Extraction(index, teacher, settings, spec, place)


def fill(job: Extraction, path: Path, revoked: Sequence[int] = ()) -> Manifest:
    """Write the units that are missing, and the revoked ones again; exit code 3 if interrupted."""
    spec = job.spec
    with Interruption() as stop, Writer.open(path, spec) as writer:
        for unit in revoked:
            writer.revoke(unit)
        left = sum(len(spec.unit_records(unit)) for unit in writer.missing_units())
        with progress("extract", spec.num_records, "views", spec.num_records - left) as advance:
            if not extract(job, writer, advance, lambda: not stop.requested):
                stop.exit_if_requested("every finished unit is in the store")
        return writer.finish()


if __name__ == "__main__":
    command()
