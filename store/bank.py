"""A store's centers or pixel samples in one file, class by class, for drawing any of them directly.

A bank is a .npy file of rows (class, record, embedding) in the order of classes, then of records,
and one row of zeros after the last, which stands for "none". It is mapped, never read whole, so
that all runs on a machine share one copy in the page cache. It can be deleted at any time: the next
run builds it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from store.errors import StoreMismatchError
from store.files import PARTIAL, replacing
from store.lock import Lock
from store.reader import Reader
from store.schema import NO_RECORD, VOID


class Rows(NamedTuple):
    """Where the embeddings of one kind lie in a store.

    Attributes:
        name: of the array of embeddings [N, M, D].
        classes: uint8 [N, M], 255 = no embedding.
    """

    name: str
    classes: np.ndarray


def open_bank(reader: Reader, folder: Path, kind: str) -> np.ndarray:
    """Map a store's bank read-only, built first if it is not in the folder.

    Args:
        reader: an open store, in any file format or at a URL.
        folder: of the banks of all stores; this one's lies under its content's digest.
        kind: "pixel" (every pixel sample) or "region" (every center).

    Returns:
        Structured [n + 1]: class and record int32, embedding float16 [D].

    Raises:
        StoreMismatchError: what lies there is no such bank.
    """
    path = folder / reader.journal.digest[:16] / f"{kind}.npy"
    if not path.exists():
        with _lock_folder(path.parent):
            if not path.exists():
                with replacing(path) as partial:
                    _build(reader, _find(reader, kind), partial)
    dtype = _row_dtype(reader.spec.feature_channels)
    try:
        bank = np.asarray(open_memmap(path, "r"))
    except ValueError as error:
        raise _not_a_bank(path, dtype, error) from error
    if bank.dtype != dtype or not len(bank) or bank["record"][-1] != NO_RECORD:
        raise _not_a_bank(path, dtype, f"{len(bank)} of {bank.dtype}")
    return bank


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Wait until no other process builds here, and remove what a killed one left."""
    with Lock(folder, wait=True):
        for partial in folder.glob(f"*{PARTIAL}"):
            partial.unlink()
        yield


def _find(reader: Reader, kind: str) -> Rows:
    if kind == "pixel":
        return Rows("pixel_sample", reader.column("pixel_sample_class"))
    present = reader.column("region_pixels") > 0
    classes = np.arange(reader.spec.num_classes, dtype=np.uint8)
    return Rows("region_center", np.where(present, classes, np.uint8(VOID)))


def _build(reader: Reader, rows: Rows, path: Path) -> None:
    """Write every embedding to its row, one unit in memory at a time."""
    spec, classes = reader.spec, rows.classes
    order = np.argsort(classes, axis=None, kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    position = position.reshape(classes.shape)
    num_rows = int((classes != VOID).sum())
    bank = open_memmap(path, "w+", _row_dtype(spec.feature_channels), (num_rows + 1,))
    bank[-1] = (spec.num_classes, NO_RECORD, np.zeros(spec.feature_channels))
    for unit in range(spec.num_units):
        records = np.array(spec.unit_records(unit))
        found = classes[records] != VOID
        to = position[records][found]
        bank["class"][to] = classes[records][found]
        bank["record"][to] = np.repeat(records, found.sum(1))
        bank["embedding"][to] = reader.read(records, [rows.name])[rows.name][found]
    bank.flush()


def _row_dtype(channels: int) -> np.dtype:
    return np.dtype([("class", "<i4"), ("record", "<i4"), ("embedding", "<f2", (channels,))])


def _not_a_bank(path: Path, dtype: np.dtype, found: object) -> StoreMismatchError:
    hint = "delete the file: it is built again from the store"
    return StoreMismatchError(
        "not the bank of this store", where=str(path), expected=dtype, found=found, hint=hint
    )
