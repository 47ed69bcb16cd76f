"""Stage 3: the teacher once over every view of every training image, into the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.command import (
    StageCommand,
    follow_extraction,
    job_files,
    measure_precision,
    min_miou_option,
    stores_option,
    warn_of_teacher,
)
from stages.progress import progress_of_total, say
from store.files import write_json

if TYPE_CHECKING:
    from pipeline.extraction.extract import Extract
    from pipeline.extraction.job import Extraction
    from pipeline.extraction.load import JobFiles
    from store.writer import Writer


@click.command(
    "extract",
    cls=StageCommand,
    example="cirkd extract artifacts/datasets/scenes/index.json artifacts/teachers/scenes.pt "
    "artifacts/manifests/scenes.json --workers 4",
)
@job_files
@click.argument("destination", metavar="MANIFEST", type=click.Path(path_type=Path))
@stores_option(help="Folder the store is made in, under its fingerprint.")
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
@min_miou_option
@click.option("--scheduler", help="Address of a running dask.distributed scheduler.")
@click.option(
    "--again",
    is_flag=True,
    envvar="CIRKD_EXTRACT_AGAIN",
    show_envvar=True,
    help="Extract every unit anew, in place of what is stored.",
)
def command(
    files: JobFiles,
    destination: Path,
    stores: Path,
    num_workers: int,
    min_miou: float,
    scheduler: str | None,
    again: bool,
) -> None:
    """Run TEACHER over INDEX into a store, and write its MANIFEST when it is complete.

    A killed run goes on at the first unit that is missing, one with --again, too.
    """
    job = files.load_whole()
    warn_of_teacher(files.teacher, min_miou)
    cost = measure_precision(job.settings.precision, job.device, "store.precision")
    start = time.perf_counter()
    with progress_of_total("find the subspace", "views") as show:
        job = files.in_subspace(job, show)
    path = stores / job.spec.fingerprint
    marker = path.with_suffix(".again")
    if again:
        from pipeline.extraction.extract import revoke_once

        revoke_once(job.spec, path, marker)
    alone = scheduler is None and num_workers == 1
    on_cluster = None if alone else _on_cluster(files, num_workers, scheduler)
    manifest = follow_extraction(job, path, extract_with=on_cluster)
    seconds = round(time.perf_counter() - start, 2)
    # Of this call: views that an interrupted one left are not in it.
    figures = {"seconds": seconds, "precision_cost": cost}
    write_json(figures, destination.with_suffix(".extract.json"))
    manifest.write(destination)
    marker.unlink(missing_ok=True)
    say(f"store {manifest.fingerprint}: {manifest.num_records} records")


def _on_cluster(files: JobFiles, num_workers: int, scheduler: str | None) -> Extract:
    from pipeline.extraction.cluster import extract_parallel, open_client

    def extract(
        job: Extraction,
        writer: Writer,
        progress: Callable[[int], None],
        keep_going: Callable[[], bool],
    ) -> bool:
        with open_client(num_workers, scheduler) as client:
            return extract_parallel(client, files, writer, progress, keep_going)

    return extract


if __name__ == "__main__":
    command()
