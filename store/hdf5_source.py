"""Reading a finished store out of the HDF5 file that `store.hdf5` made of it."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from store.errors import StoreDamagedError, StoreError, StoreNotFoundError
from store.journal import Journal, parse_journal
from store.layout import JOURNAL, RESUME, parse_attributes
from store.schema import ArraySpec, StoreSpec, array_specs


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
        with self._reading():
            attributes = dict(self._open().attrs)
            attributes["spec"] = json.loads(attributes.get("spec", "null"))
        return parse_attributes(attributes, self.location)

    def journal(self) -> Journal:
        """Read which units are complete."""
        with self._reading():
            stored = self._open()[JOURNAL][:].tobytes()
        return parse_journal(stored, self.location)

    def damaged_metadata(self, journal: Journal) -> list[str]:
        """Name the arrays that are absent, of another shape or dtype, or lack chunks."""
        with self._reading():
            specs, hdf5 = array_specs(self.spec()), self._open()
            return [name for name, array in specs.items() if not _is_whole(hdf5.get(name), array)]

    def records(self, array: ArraySpec, unit: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Read some records of one unit; see `store.chunks.ZarrSource.records`."""
        first = unit * array.unit_size
        with self._reading():
            dataset = self._open()[array.name]
            if array.sharded:
                yield from (dataset[first + int(row)] for row in rows)
            else:
                chunk = dataset[first : first + array.unit_size][rows]
                yield from np.char.decode(chunk, "utf-8") if array.dtype == "str" else chunk

    def _open(self) -> h5py.File:
        # A handle that was opened before a fork is not to be used after it.
        if self._hdf5 is None or self._pid != os.getpid():
            try:
                self._hdf5 = h5py.File(self.location, "r")
            except FileNotFoundError as error:
                raise StoreNotFoundError("no store here", self.location, remedy=RESUME) from error
            self._pid = os.getpid()
        return self._hdf5

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise StoreDamagedError(
                "the file is damaged",
                self.location,
                found=error,
                remedy="copy the store into HDF5 again",
            ) from error


def chunk_shape(array: ArraySpec) -> tuple[int, ...]:
    """The chunks of an array in HDF5: a record of a map, a unit of a small array."""
    records = 1 if array.sharded else min(array.unit_size, array.shape[0])
    return (records, *array.record_shape)


def _is_whole(dataset: Any, array: ArraySpec) -> bool:
    """Whether a dataset is the one announced; HDF5 reads a chunk that is absent as zeros."""
    if not isinstance(dataset, h5py.Dataset):
        return False
    num_chunks = -(-array.shape[0] // chunk_shape(array)[0])
    announced = (array.shape, chunk_shape(array), num_chunks)
    found = (dataset.shape, dataset.chunks, dataset.id.get_num_chunks())
    same_dtype = dataset.dtype.kind == "S" if array.dtype == "str" else dataset.dtype == array.dtype
    return announced == found and same_dtype
