"""Chunks as they are stored, without an event loop.

zarr-python spends about a millisecond on every chunk, more than its compression takes. What our
arrays use of Zarr v3 is small: little-endian bytes, Zstandard, CRC-32C, and shards whose index of
(offset, length) pairs stands at the end of the file. Tests hold what is read here to what zarr
reads, and what is written here to zarr's own files, byte for byte.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import vlen, zstd

from store.arrays import ArraySpec
from store.errors import StoreDamagedError, StoreError, StoreUnreachableError
from store.files import PARTIAL
from store.journal import Journal, UnitDigest, read_journal
from store.layout import (
    JOURNAL,
    MAX_METADATA_BYTES,
    METADATA,
    Files,
    metadata_keys,
    read_spec,
    unit_key,
)
from store.schema import StoreSpec, array_specs

Rows = range | np.ndarray
"""Positions of records inside a unit, int [n]."""
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

    def damaged_metadata(self, spec: StoreSpec, journal: Journal) -> list[str]:
        """Name the metadata files that are not as they were written."""
        # Files are opened by the names of the schema, never by those that the journal gives.
        keys = metadata_keys(spec)
        damaged = [key for key in keys if self._sha256(key) != journal.metadata.get(key)]
        return damaged + [JOURNAL] * bool(journal.metadata.keys() - set(keys))

    def unknown_files(self, spec: StoreSpec) -> list[str]:
        """Name files that no unit owns; only a local folder is listed, a URL may not allow it."""
        unknown, root = [], Path(self.location)
        for name, array in array_specs(spec).items():
            found = sorted(f"{name}/{file.name}" for file in (root / name).glob("*"))
            unknown += [
                key
                for key in found
                if not (
                    key == f"{name}/{METADATA}"
                    or key.endswith(PARTIAL)  # of a killed writer: the next one removes it
                    or _is_unit(array, key, spec.num_units)
                )
            ]
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
        key, num_bytes = unit_key(array, unit), digest.num_bytes[array.name]
        where = f"{self.location}/{key}"
        with _translate_errors(where):
            content = self._files.read_range(key, 0, num_bytes + 1)
        facts = {
            "the file is of another size": (
                f"{num_bytes} bytes",
                f"{len(content)} bytes" if len(content) <= num_bytes else "more",
            ),
            "the file is not the one that was written": (
                digest.sha256[array.name],
                hashlib.sha256(content).hexdigest(),
            ),
        }
        for what, (expected, found) in facts.items():
            if found != expected:
                raise StoreDamagedError(what, where=where, expected=expected, found=found)
        one_file = ZarrSource(_InMemory(self.location, content))
        return np.stack(list(one_file.records(array, unit, array.unit_rows(unit))))

    def records(self, array: ArraySpec, unit: int, rows: Rows) -> Iterator[np.ndarray]:
        """Read some records of one unit.

        Args:
            array: Which array.
            unit: Which unit.
            rows: Positions inside the unit, in any order.

        Yields:
            The records one by one, each of the array's record shape; they may be read-only.

        Raises:
            StoreDamagedError: A file is missing or is not what was written.
        """
        key = unit_key(array, unit)
        with _translate_errors(f"{self.location}/{key}"):
            if array.sharded:
                yield from self._shard(array, key, rows)
            else:
                chunk = _decode(_strip_checksum(self._files.read(key)), array, array.file_shape)
                yield from chunk[rows]

    def _shard(self, array: ArraySpec, key: str, rows: Rows) -> Iterator[np.ndarray]:
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
            content = self._files.read_range(key, 0, MAX_METADATA_BYTES)
        except StoreUnreachableError:
            raise
        except OSError:
            return None
        return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _translate_errors(where: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise StoreDamagedError("the file is missing", where=where) from error
    except OSError as error:
        raise StoreDamagedError("the file cannot be read", where=where, found=error) from error
    except (ValueError, RuntimeError) as error:
        raise StoreDamagedError("the file is damaged", where=where, found=error) from error


def _is_unit(array: ArraySpec, key: str, num_units: int) -> bool:
    number = key.removeprefix(f"{array.name}/c.").split(".")[0]
    return number.isdecimal() and int(number) < num_units and key == unit_key(array, int(number))


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
    is_text, num_values = array.dtype == "str", math.prod(shape)
    dtype = np.dtype("u1" if is_text else array.dtype).newbyteorder("<")
    # A frame of a few bytes may hold gigabytes: what the schema has no room for is not unpacked.
    smallest, largest = (4, array.max_text_bytes) if is_text else 2 * (num_values * dtype.itemsize,)
    num_bytes = _frame_bytes(content)
    if not smallest <= num_bytes <= largest:
        raise ValueError(f"{num_bytes} bytes in place of {largest}" + " at most" * is_text)
    raw = zstd.decompress(content)
    if not is_text:
        return np.frombuffer(raw, dtype).reshape(shape)
    if int.from_bytes(raw[:4], "little") != num_values:
        raise ValueError(f"not {num_values} strings")
    text: np.ndarray = vlen.VLenUTF8().decode(raw).astype(np.str_)
    return text.reshape(shape)


def _frame_bytes(frame: np.ndarray) -> int:
    """Return what a Zstandard frame says it unpacks to (RFC 8878, 3.1.1.1); 0 if nothing."""
    header = frame[:18].tobytes().ljust(18, b"\0")
    is_single_segment = header[4] >> 5 & 1
    start = 6 - is_single_segment + (0, 1, 2, 4)[header[4] & 3]
    width = (is_single_segment, 2, 4, 8)[header[4] >> 6]
    size = int.from_bytes(header[start : start + width], "little")
    return size + 256 if width == 2 else size
