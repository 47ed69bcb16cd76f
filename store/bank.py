"""A store's centers or pixel samples in one file, class by class, for drawing any of them directly.

A bank is a .npy file of rows (class, record, embedding) in the order of classes, then of records,
and one row of zeros after the last, which stands for "none"; then the CRC-32C of all that. It is
read through once when it is opened, to compare the checksum, and then mapped, so that all runs on a
machine share one copy in the page cache. It can be deleted at any time: the next run builds it
again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.lib.format import open_memmap

from store.errors import StoreWriteError
from store.files import PARTIAL, replacing
from store.lock import Lock
from store.reader import Reader
from store.schema import NO_RECORD, VOID

_CHECKSUM_BYTES = 4
_BLOCK_BYTES = 2**24
_DISK_BLOCK_BYTES = 4096


def open_bank(reader: Reader, folder: Path, kind: str) -> np.ndarray:
    """Map a store's bank read-only, built first if it is not in the folder or not whole there.

    Args:
        reader: an open store, in any file format or at a URL.
        folder: of the banks of all stores; this one's lies under its content's digest.
        kind: "pixel" (every pixel sample) or "region" (every center).

    Returns:
        Structured [n + 1]: class and record int32, embedding float16 [D] ([r] in a
        subspace).

    Raises:
        StoreWriteError: there is no room for it.
    """
    # Readers of a store's first views share its digest.
    path = folder / reader.journal.digest[:16] / f"{kind}-{len(reader)}.npy"
    dtype = _row_dtype(reader.spec.feature_channels)
    if not _is_whole(path, dtype):
        with _lock_folder(path.parent):
            if not _is_whole(path, dtype):
                with replacing(path) as partial:
                    _build(reader, *_find(reader, kind), partial)
    return np.asarray(open_memmap(path, "r"))


def _is_whole(path: Path, dtype: np.dtype) -> bool:
    """Whether a file is a bank of such rows and its checksum is right."""
    try:
        bank = open_memmap(path, "r")
    except (FileNotFoundError, ValueError):
        return False
    return bank.dtype == dtype and _checksum(path, -_CHECKSUM_BYTES) == _read_checksum(path)


def _read_checksum(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
        return file.read()


def _checksum(path: Path, end: int = 0) -> bytes:
    """Return the CRC-32C of a file, up to `end` bytes (0 or fewer) after its last."""
    checksum, left = 0, path.stat().st_size + end
    with open(path, "rb") as file:
        while left > 0:
            block = file.read(min(left, _BLOCK_BYTES))
            checksum = google_crc32c.extend(checksum, block)
            left -= len(block)
    return checksum.to_bytes(_CHECKSUM_BYTES, "little")


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Wait until no other process builds here, and remove what a killed one left."""
    with Lock(folder, wait=True):
        for partial in folder.glob(f"*{PARTIAL}"):
            partial.unlink()
        yield


def _find(reader: Reader, kind: str) -> tuple[str, np.ndarray]:
    """Return the name of an array of embeddings, and their classes: uint8 [N, M], VOID = none."""
    if kind == "pixel":
        return "pixel_sample", reader.column("pixel_sample_class")
    present = reader.column("region_pixels") > 0
    classes = np.arange(reader.spec.num_classes, dtype=np.uint8)
    return "region_center", np.where(present, classes, np.uint8(VOID))


def _build(reader: Reader, name: str, classes: np.ndarray, path: Path) -> None:
    """Write every embedding to its row, one unit in memory at a time."""
    spec = reader.spec
    order = np.argsort(classes, axis=None, kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    position = position.reshape(classes.shape)
    num_rows = int((classes != VOID).sum())
    bank = open_memmap(path, "w+", _row_dtype(spec.feature_channels), (num_rows + 1,))
    _allocate(path)
    bank[-1] = (spec.num_classes, NO_RECORD, np.zeros(spec.feature_channels))
    for unit in range(spec.num_units):
        records = np.array(spec.unit_records(unit))
        found = classes[records] != VOID
        to = position[records][found]
        bank["class"][to] = classes[records][found]
        bank["record"][to] = np.repeat(records, found.sum(1))
        bank["embedding"][to] = reader.read(records, [name])[name][found]
    bank.flush()
    checksum = _checksum(path)
    with open(path, "ab") as file:
        file.write(checksum)


def _allocate(path: Path) -> None:
    """Claim the blocks of a file: a mapped page that finds no room ends the process by SIGBUS."""
    with open(path, "r+b") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            else:  # macOS: a byte of every block after the first, which the header has
                for start in range(_DISK_BLOCK_BYTES, num_bytes, _DISK_BLOCK_BYTES):
                    file.seek(start)
                    file.write(b"\0")
        except OSError as error:
            raise StoreWriteError(
                "there is no room for a bank",
                where=str(path),
                expected=f"{num_bytes} bytes",
                found=error,
                hint="make room, or train with distillation.memory: queue, which needs no bank",
            ) from error


def _row_dtype(channels: int) -> np.dtype:
    return np.dtype([("class", "<i4"), ("record", "<i4"), ("embedding", "<f2", (channels,))])
