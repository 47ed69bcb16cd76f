"""Reading a finished store, record by record or column by column."""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from store.arrays import ArraySpec
from store.cache import CACHE, CachedFiles
from store.chunks import Rows, ZarrSource
from store.errors import (
    StoreDamagedError,
    StoreIncompleteError,
    StoreMismatchError,
    list_lines,
)
from store.journal import Journal, UnitDigest, check_units
from store.layout import (
    HDF5_SUFFIXES,
    REBUILD,
    RESUME,
    hint_at,
    is_url,
    open_files,
    unit_key,
)
from store.schema import StoreSpec, array_specs, diff_identity, map_arrays


class Source(Protocol):
    """What a reader needs of a file format."""

    location: str

    def spec(self) -> StoreSpec:
        """Read what the store holds."""

    def journal(self) -> Journal:
        """Read which units are complete."""

    def damaged_metadata(self, spec: StoreSpec, journal: Journal) -> list[str]:
        """Name the metadata that is not as it was written."""

    def unknown_files(self, spec: StoreSpec) -> list[str]:
        """Name what lies there and is not of the store."""

    def stored_bytes(self, array: ArraySpec, journal: Journal) -> int:
        """Return the bytes that one array takes."""

    def name(self, array: ArraySpec, unit: int) -> str:
        """Name the place of one unit of an array."""

    def read_verified(self, array: ArraySpec, unit: int, digest: UnitDigest) -> np.ndarray:
        """Read one unit whole; StoreDamagedError if it is not what was written."""

    def records(self, array: ArraySpec, unit: int, rows: Rows) -> Iterator[np.ndarray]:
        """Yield records of one unit."""


class Reader:
    """A finished store, read-only.

    It is made by `open_store`, holds no open file (one of HDF5: its own, in each process) and
    pickles, so every loader process may have one.

    Attributes:
        path: Where the store lies.
        source: How it is read.
        spec: What it holds.
        arrays: Its arrays by name.
        journal: Its units and their digests.
    """

    def __init__(self, source: Source, spec: StoreSpec, journal: Journal) -> None:
        self.path = source.location
        self.spec = spec
        self.arrays = array_specs(spec)
        self.journal = journal
        self.source = source

    def __len__(self) -> int:
        return self.spec.num_records

    def first_views(self, num_views: int) -> "Reader":
        """Return the store as if only the first views of every image had been extracted.

        Record n is view n // num_images of image n % num_images, so those are its first records.
        Identity, fingerprint and journal stay the whole store's.

        Raises:
            StoreMismatchError: The store has fewer views.
        """
        if not 1 <= num_views <= self.spec.num_views:
            raise StoreMismatchError(
                "the store has not so many views",
                where=self.path,
                expected=f"1 to {self.spec.num_views}",
                found=num_views,
                hint="ask for fewer, or extract a store with a larger num_views",
            )
        return Reader(self.source, replace(self.spec, num_views=num_views), self.journal)

    def read(
        self, indices: Sequence[int] | np.ndarray | slice, names: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Read records as stored, that is, encoded.

        Args:
            indices: Records in any order, repeated if wanted; neighbours of one unit are read
                fastest.
            names: Arrays of the store.

        Returns:
            Name -> [n, ...] in the order of `indices`; strings as numpy text.

        Raises:
            IndexError: A record is outside the store.
            StoreMismatchError: The store has no such array.
            StoreDamagedError: Bytes are missing or altered; it names the record's key and a hint.
        """
        wanted = self._positions(indices)
        unknown = sorted(set(names) - set(self.arrays))
        if unknown:
            raise StoreMismatchError(
                "no such array", where=self.path, expected=list(self.arrays), found=unknown
            )
        return {name: self._read(self.arrays[name], wanted) for name in names}

    def read_unit(self, name: str, unit: int) -> np.ndarray:
        """Read one unit of an array whole, proven against the digests of when it was written.

        Raises:
            StoreDamagedError: It is not what was written; it names the unit and a hint.
        """
        try:
            return self.source.read_verified(self.arrays[name], unit, self.journal.units[unit])
        except StoreDamagedError as error:
            where = f"{error.where} ({name} of unit {unit})"
            raise error.at(where, hint_at(self.path, REBUILD)) from error

    def column(self, name: str) -> np.ndarray:
        """Read one array whole: [num_records, ...]."""
        return self.read(slice(None), [name])[name]

    def decode(self, name: str, arrays: Mapping[str, Any]) -> Any:
        """Decode a map out of arrays as `read` returns them, or as torch tensors.

        Args:
            name: "logits" or "features".
            arrays: Among others the arrays of that map, leading axis n.

        Returns:
            float32 [n,K,h,w] or [n,D,h,w] ([n,r,h,w] coordinates of a subspace), of the kind that
            was given.
        """
        encoding = getattr(self.spec, f"{name}_encoding")
        parts = {suffix: arrays[stored] for suffix, stored in self.map_arrays(name).items()}
        return encoding.decode(parts)

    def map_arrays(self, name: str) -> dict[str, str]:
        """Return suffix -> array name of "logits" or "features": what `decode` needs."""
        return map_arrays(self.spec, name)

    def _positions(self, indices: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        if isinstance(indices, slice):
            return np.arange(len(self))[indices]
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise IndexError(f"{self.path}: no record {outside[0]}, there are {len(self)}")
        return wanted

    def _read(self, array: ArraySpec, wanted: np.ndarray) -> np.ndarray:
        dtype = object if array.dtype == "str" else array.dtype
        records = np.empty((len(wanted), *array.record_shape), dtype)
        units, rows = np.divmod(wanted, self.spec.unit_size)
        for unit in np.unique(units):
            positions = np.flatnonzero(units == unit)
            num_read = 0
            try:
                for record in self.source.records(array, int(unit), rows[positions]):
                    records[positions[num_read]] = record
                    num_read += 1
            except StoreDamagedError as error:
                raise self._named(error, array, int(wanted[positions[num_read]])) from error
        return records.astype(np.str_) if array.dtype == "str" else records

    def _named(self, error: StoreDamagedError, array: ArraySpec, record: int) -> StoreDamagedError:
        key = "unknown, for the array of keys is damaged"
        if array.dtype != "str":
            with contextlib.suppress(StoreDamagedError):
                key = repr(str(self.read([record], ["key"])["key"][0]))
        where = f"{error.where} ({array.name} of record {record}, key {key})"
        return error.at(where, hint_at(self.path, REBUILD))


def open_store(
    path: str | os.PathLike[str],
    expected: str | Mapping[str, Any] | None = None,
    storage_options: dict[str, Any] | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> Reader:
    """Open a finished store.

    Args:
        path: The store's folder, its URL (see `store.remote`), or the file that
            `store.hdf5.to_hdf5` made of it (.h5, .hdf5).
        expected: The fingerprint, or the identity, that the store must have.
        storage_options: Options for fsspec, if `path` is a URL.
        cache: A folder for local copies of what is read, if `path` is a URL; stores and processes
            may share it.
        cache_bytes: What all copies in it may take; None for no bound.

    Raises:
        StoreNotFoundError: There is no store.
        StoreUnreachableError: Its URL does not answer.
        StoreMismatchError: It is no store, of another schema, or not the one expected (the message
            lists the fields that differ).
        StoreIncompleteError: Units are missing.
        StoreDamagedError: Its metadata or journal is not as it was written.
    """
    source = find_source(path, storage_options)
    spec = source.spec()
    _refuse_foreign(source.location, spec, expected)
    journal = _whole_journal(source, spec)
    if cache is not None and is_url(path):
        # Named by the content, so that a copy is never that of another store; below a folder of
        # our own, so that what gives way is never a file of the user's.
        folder = Path(cache) / CACHE / journal.digest
        files, hashes = open_files(path, storage_options), _unit_hashes(spec, journal)
        source = ZarrSource(CachedFiles(files, folder, hashes, cache_bytes))
    return Reader(source, spec, journal)


def find_source(
    path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None
) -> Source:
    """Choose how to read what lies at a path; nothing is read yet."""
    location = os.fspath(path)
    if not location.endswith(HDF5_SUFFIXES):
        return ZarrSource(open_files(path, storage_options))
    if is_url(location):
        raise StoreMismatchError(
            "an HDF5 file opens from the local disk alone",
            where=location,
            expected="a path",
            found="a URL",
            hint="copy the file here, or put the folder of the store there",
        )
    # Most processes never read HDF5; they need not load its library.
    from store.hdf5_source import Hdf5Source

    return Hdf5Source(path)


def _whole_journal(source: Source, spec: StoreSpec) -> Journal:
    """Return the journal of a store that is finished and whose metadata is as it was written."""
    journal = source.journal()
    damaged = source.damaged_metadata(spec, journal)
    if damaged:
        raise StoreDamagedError(
            "metadata was altered",
            where=source.location,
            found=", ".join(damaged),
            hint=hint_at(source.location, REBUILD),
        )
    check_units(journal, spec, source.location)
    missing = spec.num_units - len(journal.units)
    if missing:
        raise StoreIncompleteError(
            "the store is not finished",
            where=source.location,
            expected=f"{spec.num_units} units",
            found=f"{len(journal.units)} units, {missing} missing",
            hint=hint_at(source.location, RESUME),
        )
    return journal


def _unit_hashes(spec: StoreSpec, journal: Journal) -> dict[str, str]:
    """Key -> SHA-256 of every file of every unit."""
    arrays = array_specs(spec).values()
    return {
        unit_key(array, number): unit.sha256[array.name]
        for number, unit in journal.units.items()
        for array in arrays
    }


def _refuse_foreign(where: str, spec: StoreSpec, expected: str | Mapping[str, Any] | None) -> None:
    """Raise StoreMismatchError, field by field where it can, unless it is the expected store."""
    if expected is None:
        return
    wanted, found = str(expected), spec.fingerprint
    differs = found != wanted
    if isinstance(expected, Mapping):
        lines = diff_identity(expected, spec.identity)
        differs, wanted, found = bool(lines), "the identity asked for", list_lines(lines)
    if differs:
        raise StoreMismatchError(
            "another store",
            where=where,
            expected=wanted,
            found=found,
            hint="open the store that these parameters name",
        )
