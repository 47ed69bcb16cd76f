"""Reading a finished store out of the HDF5 file that `store.hdf5` made of it."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import h5py
import numpy as np

from store.arrays import MAX_KEY_BYTES, ArraySpec
from store.chunks import Rows
from store.errors import StoreDamagedError, StoreError, StoreNotFoundError
from store.journal import Journal, UnitDigest, parse_journal
from store.layout import JOURNAL, RESUME, hint_at, parse_attributes
from store.schema import StoreSpec, array_specs

DIGESTS = "sha256"
"""The group that holds, for every array, the SHA-256 of the values of each unit."""


class Hdf5Source:
    """A store as an HDF5 file; every process opens it for itself, at its first read."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.location = os.fspath(file)
        self._hdf5: h5py.File | None = None
        self._pid = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "_hdf5": None, "_pid": 0}

    def spec(self) -> StoreSpec:
        """Read what the store holds."""
        with self._translate_errors():
            attributes = dict(self._open().attrs)
            attributes["spec"] = json.loads(attributes.get("spec", "null"))
            return parse_attributes(attributes, self.location)

    def journal(self) -> Journal:
        """Read which units are complete."""
        with self._translate_errors():
            stored = _small_dataset(self._open(), JOURNAL)[:].tobytes()
        return parse_journal(stored, self.location)

    def damaged_metadata(self, spec: StoreSpec, journal: Journal) -> list[str]:
        """Name the arrays that are absent, of another shape or dtype, or lack chunks."""
        with self._translate_errors():
            specs, hdf5 = array_specs(spec), self._open()
            return [name for name, array in specs.items() if not _is_whole(hdf5, array)]

    def unknown_files(self, spec: StoreSpec) -> list[str]:
        """Name what is in the file and not of the store."""
        with self._translate_errors():
            return sorted({*self._open()} - {*array_specs(spec), JOURNAL, DIGESTS})

    def stored_bytes(self, array: ArraySpec, journal: Journal) -> int:
        """Return the size of an array's chunks."""
        with self._translate_errors():
            size: int = _open_dataset(self._open(), array.name).id.get_storage_size()
            return size

    def name(self, array: ArraySpec, unit: int) -> str:
        """Name one unit's records of an array."""
        first = unit * array.unit_size
        return f"{array.name}[{first}:{first + len(array.unit_rows(unit))}]"

    def read_verified(self, array: ArraySpec, unit: int, digest: UnitDigest) -> np.ndarray:
        """Read one unit whole and compare it with the SHA-256 of its values.

        The digests of the journal are those of Zarr's files, which are not here.
        """
        values = np.stack(list(self.records(array, unit, array.unit_rows(unit))))
        with self._translate_errors(array.name):
            digests = _small_dataset(self._open(), f"{DIGESTS}/{array.name}")
            expected, found = digests[unit].decode(), hash_values(values)
        if found != expected:
            where = f"{self.location}/{self.name(array, unit)}"
            raise StoreDamagedError(
                "values are not those that were copied", where=where, expected=expected, found=found
            )
        return values

    def records(self, array: ArraySpec, unit: int, rows: Rows) -> Iterator[np.ndarray]:
        """Read some records of one unit; see `store.chunks.ZarrSource.records`."""
        first = unit * array.unit_size
        with self._translate_errors(array.name):
            dataset = _open_dataset(self._open(), array.name)
            if array.sharded:
                yield from (dataset[first + int(row)] for row in rows)
            else:
                chunk = dataset[first : first + array.unit_size][rows]
                yield from np.char.decode(chunk, "utf-8") if array.dtype == "str" else chunk

    def _open(self) -> h5py.File:
        # A handle that was opened before a fork is not to be used after it.
        if self._hdf5 is None or self._pid != os.getpid():
            if not os.path.isfile(self.location):
                raise StoreNotFoundError(
                    "no store here",
                    where=self.location,
                    expected="an HDF5 file",
                    found="none",
                    hint=hint_at(self.location, RESUME),
                )
            self._hdf5, self._pid = h5py.File(self.location, "r"), os.getpid()
        return self._hdf5

    @contextlib.contextmanager
    def _translate_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise StoreDamagedError(
                "the file is damaged",
                where=f"{self.location}/{name}" if name else self.location,
                found=error,
                hint=hint_at(self.location, RESUME),
            ) from error


def hash_values(values: np.ndarray) -> str:
    """Return the SHA-256 of an array with its dtype and shape; of strings as text."""
    if values.dtype.kind == "U":
        content = json.dumps(values.tolist()).encode()
    else:
        content = f"{values.dtype.str} {values.shape} ".encode() + values.tobytes()
    return hashlib.sha256(content).hexdigest()


def chunk_shape(array: ArraySpec) -> tuple[int, ...]:
    """Return the chunk shape of an array in HDF5: a record of a map, a unit of a small array."""
    records = 1 if array.sharded else min(array.unit_size, array.shape[0])
    return (records, *array.record_shape)


def open_hard_linked(hdf5: h5py.File, name: str) -> h5py.Dataset:
    """Open a dataset of this very file; a link may lead to any other file of the machine.

    Raises:
        KeyError: there is a link on the way to it, or no such thing.
        ValueError: it is no dataset.
    """
    for part in accumulate(name.split("/"), "{}/{}".format):
        if not isinstance(hdf5.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"no {part}, or a link in its place")
    dataset = hdf5[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    return dataset


def _open_dataset(hdf5: h5py.File, name: str) -> h5py.Dataset:
    dataset = open_hard_linked(hdf5, name)
    if dataset.chunks is None:
        raise ValueError(f"{name} is not stored in chunks of this file")
    return dataset


def _small_dataset(hdf5: h5py.File, name: str) -> h5py.Dataset:
    """Open a dataset that was written without compression, and so takes at least its own size."""
    dataset = _open_dataset(hdf5, name)
    if dataset.nbytes > dataset.id.get_storage_size():
        raise ValueError(f"{name} lacks chunks")
    return dataset


def _is_whole(hdf5: h5py.File, array: ArraySpec) -> bool:
    """Whether a dataset is the one announced; HDF5 reads a chunk that is absent as zeros."""
    try:
        dataset = _open_dataset(hdf5, array.name)
    except (KeyError, ValueError):
        return False
    num_chunks = -(-array.shape[0] // chunk_shape(array)[0])
    announced = (array.shape, chunk_shape(array), num_chunks)
    found = (dataset.shape, dataset.chunks, dataset.id.get_num_chunks())
    if array.dtype == "str":
        same_dtype = dataset.dtype.kind == "S" and dataset.dtype.itemsize <= MAX_KEY_BYTES
    else:
        same_dtype = dataset.dtype == array.dtype
    return announced == found and same_dtype
