"""The teacher's single pass: views and targets of every training image, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.extraction.job import Extraction
from pipeline.extraction.records import draw_records
from pipeline.extraction.targets import TeacherOutputs, encode_unit, forward_teacher
from pipeline.runtime.ahead import ahead
from store.files import replace_file
from store.journal import UnitDigest
from store.manifest import Manifest
from store.progress import Progress
from store.schema import StoreSpec
from store.writer import Writer, write_unit

Extract = Callable[[Extraction, Writer, Callable[[int], None], Callable[[], bool]], bool]
"""Takes what `extract` takes, and returns what it returns."""


def extract(
    job: Extraction,
    writer: Writer,
    progress: Callable[[int], None] = lambda records: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> bool:
    """Write every unit that is still missing; reading, teacher and writing overlap.

    Args:
        job: what to extract.
        writer: open on the store; units enter its journal in this thread.
        progress: called with the number of records of each finished unit.
        keep_going: asked before each unit; after False the units in hand are finished.

    Returns:
        Whether the store is complete.
    """
    torch.set_num_threads(job.settings.threads)

    def targets() -> Iterator[tuple[int, dict[str, np.ndarray], TeacherOutputs]]:
        drawn = ahead(lambda unit: (unit, _draw_unit(job, unit)), writer.missing_units())
        for unit, arrays in drawn:
            if not keep_going():
                return
            yield unit, arrays, forward_teacher(job, arrays["image"])

    def write(item: tuple[int, dict[str, np.ndarray], TeacherOutputs]) -> UnitDigest:
        unit, arrays, outputs = item
        return write_unit(writer.path, job.spec, unit, encode_unit(job, unit, arrays, outputs))

    for digest in ahead(write, targets()):
        writer.commit(digest)
        progress(len(job.spec.unit_records(digest.unit)))
    return not writer.missing_units()


def fill(
    job: Extraction,
    path: Path,
    revoked: Sequence[int] = (),
    extract_with: Extract = extract,
    progress: Progress = lambda done, total: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> Manifest | None:
    """Write the units that a store lacks, and the revoked ones again.

    Args:
        job: what to extract.
        path: folder of the store, made if it is not there.
        revoked: units that must be written again.
        extract_with: writes what is missing, here or elsewhere.
        progress: called with (records done, records in all), before the first unit and after each.
        keep_going: as in `extract`.

    Returns:
        The manifest of the finished store; None if it was told to stop before.
    """
    spec = job.spec
    with Writer.open(path, spec) as writer:
        for unit in revoked:
            writer.revoke(unit)
        done = spec.num_records - sum(len(spec.unit_records(n)) for n in writer.missing_units())

        def count(records: int) -> None:
            nonlocal done
            done += records
            progress(done, spec.num_records)

        count(0)
        return writer.finish() if extract_with(job, writer, count, keep_going) else None


def revoke_once(spec: StoreSpec, path: Path, marker: Path) -> None:
    """Revoke every unit of a store, and leave a marker; if it is there, the units are revoked.

    So an extraction of all units anew that was killed goes on, and does not begin again.
    """
    if marker.exists():
        return
    with Writer.open(path, spec) as writer:
        for unit in sorted(set(range(spec.num_units)) - set(writer.missing_units())):
            writer.revoke(unit)
    replace_file(marker, b"")


def build_unit(job: Extraction, unit: int) -> dict[str, np.ndarray]:
    """Build every array of one unit's records, encoded, by schema name."""
    arrays = _draw_unit(job, unit)
    return encode_unit(job, unit, arrays, forward_teacher(job, arrays["image"]))


def _draw_unit(job: Extraction, unit: int) -> dict[str, np.ndarray]:
    return draw_records(job.index, job.settings, job.spec.unit_records(unit))
