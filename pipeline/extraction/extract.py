"""The teacher's single pass: views and targets of every training image, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from pipeline.extraction.job import Extraction
from pipeline.extraction.records import draw_records
from pipeline.extraction.targets import TeacherOutputs, encode_unit, forward_teacher
from store.journal import UnitDigest
from store.writer import Writer, write_unit

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in order, in a thread that works on one item while the next one is fetched here."""
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for item in items:
            upcoming = pool.submit(function, item)
            if pending is not None:
                yield pending.result()
            pending = upcoming
        if pending is not None:
            yield pending.result()


def build_unit(job: Extraction, unit: int) -> dict[str, np.ndarray]:
    """Every array of one unit's records, encoded, by schema name."""
    arrays = _draw_unit(job, unit)
    return encode_unit(job, unit, arrays, forward_teacher(job, arrays["image"]))


def _draw_unit(job: Extraction, unit: int) -> dict[str, np.ndarray]:
    return draw_records(job.index, job.settings, job.spec.unit_records(unit))
