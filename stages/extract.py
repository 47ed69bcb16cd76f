"""Stage 3: the teacher once over every view of every training image, into the store."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction
from pipeline.extraction.load import JobFiles
from stages.command import (
    Interruption,
    StageCommand,
    device_option,
    measure_precision,
    params_option,
)
from stages.progress import Advance, progress
from store.files import write_json
from store.manifest import Manifest
from store.writer import Writer

if TYPE_CHECKING:
    from distributed import Client


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
@click.option(
    "--workers",
    "num_workers",
    type=click.IntRange(min=1),
    default=1,
    envvar="CIRKD_EXTRACT_WORKERS",
    show_envvar=True,
    show_default=True,
    help="Processes of a local dask cluster; never changes a byte.",
)
@click.option("--scheduler", help="Address of a running dask.distributed scheduler.")
def command(
    index_path: Path,
    teacher_path: Path,
    destination: Path,
    params_path: Path,
    device_name: str,
    stores: Path,
    num_workers: int,
    scheduler: str | None,
) -> None:
    """Run TEACHER over INDEX into a store, and write its MANIFEST when it is complete.

    A killed run goes on at the first unit that is missing.
    """
    files = JobFiles(
        index_path.resolve(), teacher_path.resolve(), params_path.resolve(), device_name
    )
    job = files.load()
    cost = measure_precision(job.settings.precision, job.device, "store.precision")
    start = time.perf_counter()
    if scheduler is None and num_workers == 1:
        manifest = fill(job, stores / job.spec.fingerprint)
    else:
        with _cluster(num_workers, scheduler) as client:
            manifest = fill(job, stores / job.spec.fingerprint, extract_with=_many(client, files))
    seconds = round(time.perf_counter() - start, 2)
    # Of this call: views that an interrupted one left are not in it.
    figures = {"seconds": seconds, "precision_cost": cost}
    write_json(figures, destination.with_suffix(".extract.json"))
    manifest.write(destination)
    click.echo(f"store {manifest.fingerprint}: {manifest.num_records} records")


Extract = Callable[[Extraction, Writer, Advance, Callable[[], bool]], bool]


def fill(
    job: Extraction, path: Path, revoked: Sequence[int] = (), extract_with: Extract = extract
) -> Manifest:
    """Write the units that are missing, and the revoked ones again; exit code 3 if interrupted."""
    spec = job.spec
    with Interruption() as stop, Writer.open(path, spec) as writer:
        for unit in revoked:
            writer.revoke(unit)
        left = sum(len(spec.unit_records(unit)) for unit in writer.missing_units())
        with progress("extract", spec.num_records, "views", spec.num_records - left) as advance:
            if not extract_with(job, writer, advance, lambda: not stop.requested):
                stop.exit_if_requested("every finished unit is in the store")
        return writer.finish()


def _many(client: "Client", files: JobFiles) -> Extract:
    from pipeline.extraction.cluster import extract_parallel

    def extract_here(
        job: Extraction, writer: Writer, advance: Advance, keep_going: Callable[[], bool]
    ) -> bool:
        return extract_parallel(client, files, writer, advance, keep_going)

    return extract_here


@contextmanager
def _cluster(num_workers: int, scheduler: str | None) -> Iterator["Client"]:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with Client(scheduler) as client:
            click.echo(f"dashboard: {client.dashboard_link}", err=True)
            yield client
        return
    with (
        LocalCluster(n_workers=num_workers, threads_per_worker=1) as cluster,
        Client(cluster) as client,
    ):
        click.echo(f"dashboard: {client.dashboard_link}", err=True)
        yield client


if __name__ == "__main__":
    command()
