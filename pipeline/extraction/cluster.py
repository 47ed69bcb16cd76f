"""Extraction by many workers: one task a unit; the coordinator alone writes the journal."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from distributed import Client, as_completed

from pipeline.extraction.extract import build_unit
from pipeline.extraction.job import Extraction
from pipeline.extraction.load import JobFiles
from store.journal import UnitDigest
from store.writer import Writer, write_unit

RETRIES = 3


def extract_parallel(
    client: Client,
    files: JobFiles,
    writer: Writer,
    progress: Callable[[int], None] = lambda records: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> bool:
    """Write every unit that is still missing with the workers of a dask cluster.

    A lost worker's units are given to others. The bytes do not depend on the number of workers:
    a forward batch never crosses a unit, and every worker uses the same number of threads.

    Args:
        client: of any dask.distributed cluster whose workers see the store's folder.
        files: what each worker loads the extraction from, once.
        writer: open on the store, here.
        progress: called with the number of records of each finished unit.
        keep_going: asked after each unit; after False the units in hand are finished.

    Returns:
        Whether the store is complete.
    """
    path, spec = Path(writer.path).resolve(), writer.spec
    # A few units a worker at a time, so that an interruption has little to wait for.
    left = iter(writer.missing_units())
    window = 2 * max(1, len(client.scheduler_info()["workers"]))
    futures = as_completed([])  # type: ignore[no-untyped-call]

    def submit() -> None:
        unit = next(left, None)
        if unit is not None:
            task = (_write, files, spec.fingerprint, path, unit)
            future = client.submit(*task, retries=RETRIES, pure=False)
            futures.add(future)  # type: ignore[no-untyped-call]

    for _ in range(window):
        submit()
    for future in futures:
        digest: UnitDigest = future.result()
        writer.commit(digest)
        progress(len(spec.unit_records(digest.unit)))
        if keep_going():
            submit()
    return not writer.missing_units()


def _write(files: JobFiles, fingerprint: str, path: Path, unit: int) -> UnitDigest:
    job = _load_once(files, fingerprint)
    torch.set_num_threads(job.settings.threads)
    return write_unit(path, job.spec, unit, build_unit(job, unit))


@lru_cache(maxsize=1)
def _load_once(files: JobFiles, fingerprint: str) -> Extraction:
    """A worker may outlive a teacher: another fingerprint means that the files changed."""
    return files.load()
