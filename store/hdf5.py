"""A finished store as one HDF5 file, and back: the same arrays, attributes and journal.

Chunks are those of the Zarr store (a record of a map, a unit of a small array), deflated and with a
Fletcher-32 checksum; the file format is one whose metadata has checksums too. Beside the arrays lie
the SHA-256 of their values, unit by unit, because a chunk in the place of another has a right
checksum. Both directions move one unit at a time, whatever the size of the store.
"""

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from store.arrays import ArraySpec
from store.errors import StoreMismatchError
from store.files import replacing
from store.hdf5_source import DIGESTS, chunk_shape, hash_values
from store.layout import HDF5_SUFFIXES, JOURNAL, group_attributes, open_files
from store.manifest import Manifest
from store.reader import Reader, open_store
from store.schema import StoreSpec
from store.writer import Writer

StorePath = str | os.PathLike[str]


def to_hdf5(path: StorePath, file: StorePath) -> None:
    """Copy a finished Zarr store into a new HDF5 file, which appears whole or not at all.

    Raises:
        StoreError: The store does not open, or is damaged (`store.reader.open_store` says how).
        StoreMismatchError: The file exists, or would not be known for HDF5 by its name.
    """
    target = Path(file)
    if target.suffix not in HDF5_SUFFIXES:
        raise StoreMismatchError(
            "no name of an HDF5 file",
            where=str(target),
            expected=" or ".join(HDF5_SUFFIXES),
            found=target.suffix or "no suffix",
            hint="name the file so: by its suffix it is opened",
        )
    reader = open_store(path)
    if reader.path.endswith(HDF5_SUFFIXES):
        raise StoreMismatchError(
            "the store is an HDF5 file",
            where=reader.path,
            expected="a folder",
            found="a file",
            hint="copy the file",
        )
    if target.exists():
        raise StoreMismatchError(
            "the file exists",
            where=str(target),
            expected="no file",
            found="one",
            hint="remove it, or name another",
        )
    with replacing(target) as partial, h5py.File(partial, "w", libver="v110") as hdf5:
        hdf5.attrs.update(_attributes(reader.spec))
        journal = np.frombuffer(open_files(path).read(JOURNAL), np.uint8)
        hdf5.create_dataset(JOURNAL, data=journal, chunks=journal.shape, fletcher32=True)
        for array in reader.arrays.values():
            _copy_array(reader, hdf5, array)


def from_hdf5(file: StorePath, path: StorePath) -> Manifest:
    """Copy an HDF5 file into a Zarr store; killed and repeated it goes on at the next unit.

    Raises:
        StoreError: The file is no such store, or is damaged, or another store lies at `path`.
    """
    reader = open_store(file)
    with Writer.open(path, reader.spec) as writer:
        for unit in writer.missing_units():
            writer.write(unit, {name: reader.read_unit(name, unit) for name in reader.arrays})
        return writer.finish()


def _attributes(spec: StoreSpec) -> dict[str, Any]:
    """HDF5 attributes are not nested: the spec becomes JSON text."""
    attributes = group_attributes(spec)
    return {**attributes, "spec": json.dumps(attributes["spec"])}


def _copy_array(reader: Reader, hdf5: h5py.File, array: ArraySpec) -> None:
    dataset = hdf5.create_dataset(
        array.name,
        shape=array.shape,
        dtype=_dtype(reader, array),
        chunks=chunk_shape(array),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,
    )
    for axis, label in enumerate(array.axes):
        dataset.dims[axis].label = label
    digests = []
    for unit in range(reader.spec.num_units):
        records = reader.spec.unit_records(unit)
        values = reader.read_unit(array.name, unit)
        digests.append(hash_values(values))
        if array.dtype == "str":
            values = np.char.encode(values, "utf-8").astype(dataset.dtype)
        dataset[records.start : records.stop] = values
    whole = (len(digests),)
    name = f"{DIGESTS}/{array.name}"
    hdf5.create_dataset(name, data=np.array(digests, "S64"), chunks=whole, fletcher32=True)


def _dtype(reader: Reader, array: ArraySpec) -> Any:
    if array.dtype != "str":
        return np.dtype(array.dtype)
    # Strings of any length would lie outside the chunks, where no checksum covers them.
    longest = max(len(text.encode()) for text in reader.column(array.name))
    return h5py.string_dtype("utf-8", max(1, longest))
