"""A finished store as one HDF5 file, and back: the same arrays, attributes and journal.

Chunks are those of the Zarr store (a record of a map, a unit of a small array), deflated and with a
Fletcher-32 checksum; the file format is one whose metadata has checksums too. Both directions move
one unit at a time, whatever the size of the store.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from store.errors import (
    StoreDamagedError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
)
from store.journal import Journal, parse_journal
from store.layout import (
    JOURNAL,
    PARTIAL,
    RESUME,
    LocalFiles,
    group_attributes,
    parse_attributes,
    sync_path,
)
from store.manifest import Manifest
from store.reader import Reader, open_store
from store.schema import ArraySpec, StoreSpec, array_specs
from store.writer import Writer

StorePath = str | os.PathLike[str]
_COPY_AGAIN = "copy the store into HDF5 again"


def to_hdf5(path: StorePath, file: StorePath) -> None:
    """Copy a finished Zarr store into a new HDF5 file, which appears whole or not at all.

    Raises:
        StoreError: The store does not open, or is damaged (`store.reader.open_store` says how).
        StoreMismatchError: The file exists.
    """
    reader, target = open_store(path), Path(file)
    if target.exists():
        raise StoreMismatchError(
            "the file exists", str(target), remedy="remove it, or name another"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    try:
        with h5py.File(partial, "w", libver="v110") as hdf5:
            hdf5.attrs.update(_attributes(reader.spec))
            journal = np.frombuffer(LocalFiles(path).read(JOURNAL), np.uint8)
            hdf5.create_dataset(JOURNAL, data=journal, chunks=journal.shape, fletcher32=True)
            for array in reader.arrays.values():
                _copy_array(reader, hdf5, array)
        sync_path(partial)
        os.replace(partial, target)
        sync_path(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def from_hdf5(file: StorePath, path: StorePath) -> Manifest:
    """Copy an HDF5 file into a Zarr store; killed and repeated it goes on at the next unit.

    Raises:
        StoreError: The file is no such store, or is damaged, or another store lies at `path`.
    """
    reader = open_store(file)
    with Writer.open(path, reader.spec) as writer:
        for unit in writer.missing_units():
            writer.write(unit, reader.read(reader.spec.unit_records(unit), list(reader.arrays)))
        return writer.finish()


class Hdf5Source:
    """A store as an HDF5 file; every process opens it for itself, at its first read."""

    def __init__(self, file: StorePath) -> None:
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
                "the file is damaged", self.location, found=error, remedy=_COPY_AGAIN
            ) from error


def _attributes(spec: StoreSpec) -> dict[str, Any]:
    """HDF5 attributes are not nested: the spec becomes JSON text."""
    attributes = group_attributes(spec)
    return {**attributes, "spec": json.dumps(attributes["spec"])}


def _copy_array(reader: Reader, hdf5: h5py.File, array: ArraySpec) -> None:
    dataset = hdf5.create_dataset(
        array.name,
        shape=array.shape,
        dtype=_dtype(reader, array),
        chunks=_chunk_shape(array),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,
    )
    for axis, label in enumerate(array.axes):
        dataset.dims[axis].label = label
    for unit in range(reader.spec.num_units):
        records = reader.spec.unit_records(unit)
        values = reader.read(records, [array.name])[array.name]
        if array.dtype == "str":
            values = np.char.encode(values, "utf-8").astype(dataset.dtype)
        dataset[records.start : records.stop] = values


def _dtype(reader: Reader, array: ArraySpec) -> Any:
    if array.dtype != "str":
        return np.dtype(array.dtype)
    # Strings of any length would lie outside the chunks, where no checksum covers them.
    longest = max(len(text.encode()) for text in reader.column(array.name))
    return h5py.string_dtype("utf-8", max(1, longest))


def _chunk_shape(array: ArraySpec) -> tuple[int, ...]:
    return (
        (1, *array.record_shape)
        if array.sharded
        else (
            min(array.unit_size, array.shape[0]),
            *array.record_shape,
        )
    )


def _is_whole(dataset: Any, array: ArraySpec) -> bool:
    """Whether a dataset is the one announced; HDF5 reads a chunk that is absent as zeros."""
    if not isinstance(dataset, h5py.Dataset):
        return False
    num_chunks = -(-array.shape[0] // _chunk_shape(array)[0])
    announced = (array.shape, _chunk_shape(array), num_chunks)
    found = (dataset.shape, dataset.chunks, dataset.id.get_num_chunks())
    same_dtype = dataset.dtype.kind == "S" if array.dtype == "str" else dataset.dtype == array.dtype
    return announced == found and same_dtype
