"""Stores that were written under schema version 1 (at commit c0cff31, by stand_in.py) still open.

fixtures/schema_1.zip holds a Zarr store of every target ("whole"), one of two targets in other
encodings ("part"), and the first as an HDF5 file; fixtures/schema_1.json holds what was read then.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.audit import audit
from store.hdf5 import from_hdf5
from store.reader import Reader, open_store
from store.verify import verify

FIXTURES = Path(__file__).with_name("fixtures")
EXPECTED = json.loads((FIXTURES / "schema_1.json").read_text())
STORES = [("whole", "whole"), ("part", "part"), ("whole.h5", "whole")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores, unpacked; only for reading."""
    path = tmp_path_factory.mktemp("schema_1")
    with zipfile.ZipFile(FIXTURES / "schema_1.zip") as archive:
        archive.extractall(path)
    return path


def describe(values: np.ndarray) -> list[Any]:
    """Name an array's dtype and shape, and the SHA-256 of its bytes (of strings: of their text)."""
    if values.dtype.kind == "U":
        content, dtype = "\n".join(values).encode(), "str"
    else:
        content, dtype = values.tobytes(), values.dtype.str
    return [dtype, list(values.shape), hashlib.sha256(content).hexdigest()]


def decode_corner(reader: Reader, name: str) -> list[float]:
    """Decode a map of record 1 and return its first pixel."""
    arrays = reader.read([1], list(reader.map_arrays(name).values()))
    return reader.decode(name, arrays)[0, :, 0, 0].tolist()


@pytest.mark.parametrize(("file", "name"), STORES)
def test_an_older_store_reads_as_it_did(folder: Path, file: str, name: str) -> None:
    expected = EXPECTED[name]
    reader = open_store(folder / file, expected["fingerprint"])
    assert verify(folder / file, digest=expected["digest"]) == []
    assert reader.journal.digest == expected["digest"]
    assert len(reader) == expected["records"]
    assert (reader.spec.schema_version, reader.spec.stride) == (1, 8)
    assert reader.spec.feature_channels == len(expected["decoded"]["features"])
    assert reader.column("key").tolist() == expected["keys"]
    assert {array: describe(reader.column(array)) for array in reader.arrays} == expected["columns"]
    decoded = {target: decode_corner(reader, target) for target in ("logits", "features")}
    assert decoded == expected["decoded"]
    assert audit(reader)["digest"] == expected["digest"]


def test_a_copy_of_an_older_store_is_that_store_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    manifest = from_hdf5(folder / "whole.h5", tmp_path / "back")
    assert manifest.digest == EXPECTED["whole"]["digest"]
    assert manifest.schema_version == 1
    for file in (folder / "whole").rglob("*"):
        if file.is_file():
            copy = tmp_path / "back" / file.relative_to(folder / "whole")
            assert copy.read_bytes() == file.read_bytes()
