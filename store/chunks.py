"""Chunks as they are stored, without an event loop.

zarr-python spends about a millisecond on every chunk, more than its compression takes. What our
arrays use of Zarr v3 is small: little-endian bytes, Zstandard, CRC-32C, and shards whose index of
(offset, length) pairs stands at the end of the file. Tests hold what is read here to what zarr
reads, and what is written here to zarr's own files, byte for byte.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import vlen, zstd

from store.arrays import ArraySpec
from store.errors import StoreDamagedError
from store.journal import Journal, UnitDigest, read_journal
from store.layout import METADATA, Files, read_spec, unit_key
from store.schema import StoreSpec, array_specs

ZSTD_LEVEL = 1
_CHECKSUM_BYTES = 4
_PAIR_BYTES = 16
_ABSENT = 2**64 - 1


class ZarrSource:
    """A store as Zarr files; holds no open file, so it travels to other processes as it is."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.location = files.location

    def spec(self) -> StoreSpec:
        """Read what the store holds (see `store.layout.read_spec`)."""
        return read_spec(self._files)

    def journal(self) -> Journal:
        """Read which units are complete (see `store.journal.read_journal`)."""
        return read_journal(self._files)

    def damaged_metadata(self, journal: Journal) -> list[str]:
        """Name the metadata files that are not as they were written."""
        return [key for key, expected in journal.metadata.items() if self._sha256(key) != expected]

    def unknown_files(self, spec: StoreSpec) -> list[str]:
        """Name files that no unit owns; only a local folder is listed, a URL may not allow it."""
        unknown, root = [], Path(self.location)
        for name, array in array_specs(spec).items():
            owned = {unit_key(array, unit) for unit in range(spec.num_units)}
            found = {f"{name}/{file.name}" for file in (root / name).glob("*")}
            unknown += sorted(found - owned - {f"{name}/{METADATA}"})
        return unknown

    def stored_bytes(self, array: ArraySpec, journal: Journal) -> int:
        """Return the size of an array's files."""
        return sum(unit.num_bytes[array.name] for unit in journal.units.values())

    def name(self, array: ArraySpec, unit: int) -> str:
        """Name the file of one unit."""
        return unit_key(array, unit)

    def read_verified(self, array: ArraySpec, unit: int, digest: UnitDigest) -> np.ndarray:
        """Read one unit whole and compare its file with the journal.

        Raises:
            StoreDamagedError: The file is missing or is not what was written.
        """
        key = unit_key(array, unit)
        where = f"{self.location}/{key}"
        try:
            content = self._files.read(key)
        except FileNotFoundError as error:
            raise StoreDamagedError("the file is missing", where=where) from error
        facts = {
            "the file is of another size": (digest.num_bytes.get(array.name), len(content)),
            "the file is not the one that was written": (
                digest.sha256.get(array.name),
                hashlib.sha256(content).hexdigest(),
            ),
        }
        for what, (expected, found) in facts.items():
            if found != expected:
                raise StoreDamagedError(what, where=where, expected=expected, found=found)
        one_file = ZarrSource(_InMemory(self.location, content))
        return np.stack(list(one_file.records(array, unit, array.unit_rows(unit))))

    def records(self, array: ArraySpec, unit: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Read some records of one unit.

        Args:
            array: Which array.
            unit: Which unit.
            rows: Positions inside the unit, in any order, int [n].

        Yields:
            The records one by one, each of the array's record shape; they may be read-only.

        Raises:
            StoreDamagedError: A file is missing or is not what was written.
        """
        key = unit_key(array, unit)
        where = f"{self.location}/{key}"
        try:
            if array.sharded:
                yield from self._shard(array, key, rows)
            else:
                chunk = _decode(_strip_checksum(self._files.read(key)), array, array.file_shape)
                yield from chunk[rows]
        except FileNotFoundError as error:
            raise StoreDamagedError("a file is missing", where=where) from error
        except (ValueError, RuntimeError) as error:
            raise StoreDamagedError("a file is damaged", where=where, found=error) from error

    def _shard(self, array: ArraySpec, key: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        index_bytes = array.unit_size * _PAIR_BYTES + _CHECKSUM_BYTES
        index = _strip_checksum(self._files.read_tail(key, index_bytes))
        extents = np.frombuffer(index, "<u8").reshape(array.unit_size, 2)
        for row in rows:
            start, num_bytes = (int(value) for value in extents[row])
            if start == _ABSENT:
                raise ValueError(f"the shard lacks record {row} of the unit")
            stored = self._files.read_range(key, start, start + num_bytes)
            yield _decode(_strip_checksum(stored), array, array.record_shape)

    def _sha256(self, key: str) -> str | None:
        try:
            return hashlib.sha256(self._files.read(key)).hexdigest()
        except FileNotFoundError:
            return None


def encode_file(array: ArraySpec, values: np.ndarray) -> bytes:
    """Encode the records of one unit as the file that zarr would write.

    Args:
        array: Which array.
        values: Its records, of the array's dtype (strings as numpy text), [n, ...] with
            n = unit_size but in the last unit.
    """
    if not array.sharded:
        # A chunk is always whole: behind a short unit stand fill values.
        chunk = np.zeros(array.file_shape, values.dtype)
        chunk[: len(values)] = values
        return _encode(chunk, array)
    records = [_encode(record, array) for record in values]
    extents = np.full((array.unit_size, 2), _ABSENT, "<u8")
    lengths = np.array([len(record) for record in records], "<u8")
    extents[: len(records), 0] = np.cumsum(lengths) - lengths
    extents[: len(records), 1] = lengths
    return b"".join([*records, _with_checksum(extents.tobytes())])


def _encode(values: np.ndarray, array: ArraySpec) -> bytes:
    if array.dtype == "str":
        raw = vlen.VLenUTF8().encode(values.astype(object))
    else:
        raw = values.astype(np.dtype(array.dtype).newbyteorder("<"), copy=False).tobytes()
    return _with_checksum(zstd.compress(raw, ZSTD_LEVEL))


def _with_checksum(content: bytes) -> bytes:
    checksum: int = google_crc32c.value(content)
    return content + checksum.to_bytes(_CHECKSUM_BYTES, "little")


class _InMemory:
    """`store.layout.Files` of one file that has been read."""

    def __init__(self, location: str, content: bytes) -> None:
        self.location, self._content = location, content

    def read(self, key: str) -> bytes:
        return self._content

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self._content[start:stop]

    def read_tail(self, key: str, num_bytes: int) -> bytes:
        return self._content[-num_bytes:]


def _strip_checksum(stored: bytes) -> np.ndarray:
    """Return the content in front of a CRC-32C; ValueError if they disagree."""
    if len(stored) <= _CHECKSUM_BYTES:
        raise ValueError(f"{len(stored)} bytes are too few")
    # google_crc32c takes no memoryview, and slicing bytes would copy them.
    content = np.frombuffer(stored, np.uint8)[:-_CHECKSUM_BYTES]
    expected = int.from_bytes(stored[-_CHECKSUM_BYTES:], "little")
    found = google_crc32c.value(content)
    if found != expected:
        raise ValueError(f"checksum {found:08x} in place of {expected:08x}")
    return content


def _decode(content: np.ndarray, array: ArraySpec, shape: tuple[int, ...]) -> np.ndarray:
    raw = zstd.decompress(content)
    if array.dtype == "str":
        text: np.ndarray = vlen.VLenUTF8().decode(raw).astype(np.str_)
        return text.reshape(shape)
    return np.frombuffer(raw, np.dtype(array.dtype).newbyteorder("<")).reshape(shape)
