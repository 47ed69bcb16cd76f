import json
import multiprocessing
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from store.errors import (
    StoreDamagedError,
    StoreIncompleteError,
    StoreMismatchError,
    StoreNotFoundError,
)
from store.reader import Reader, open_store
from store.schema import SCHEMA_VERSION, StoreSpec, array_specs
from store.writer import Writer

MakeSpec = Callable[..., StoreSpec]
MakeUnit = Callable[[StoreSpec, int], dict[str, np.ndarray]]

ARRAYS = [
    *(
        "image",
        "labels",
        "logits",
        "features",
        "features_scale",
        "auxiliary_attention",
        "region_center",
        "region_pixels",
    ),
    *("pixel_sample", "pixel_sample_class", "key", "view_index", "source_height", "source_width"),
    *("scale", "flip", "top", "left", "crop_height", "crop_width"),
]


@pytest.fixture(params=["zarr", "hdf5"])
def reader(request: pytest.FixtureRequest, finished: Path, finished_hdf5: Path) -> Reader:
    """The contract of a reader holds whatever it reads."""
    return open_store(finished if request.param == "zarr" else finished_hdf5)


@pytest.fixture(scope="module")
def written(make_spec: MakeSpec, make_unit: MakeUnit) -> dict[str, np.ndarray]:
    """What was given to the writer: every array whole."""
    units = [make_unit(make_spec(), unit) for unit in range(make_spec().num_units)]
    return {name: np.concatenate([unit[name] for unit in units]) for name in ARRAYS}


def test_the_list_of_arrays_is_complete(reader: Reader) -> None:
    assert sorted(ARRAYS) == sorted(reader.arrays) == sorted(array_specs(reader.spec))


@pytest.mark.parametrize("name", ARRAYS)
def test_reading_gives_what_was_written_and_what_zarr_reads(
    reader: Reader, written: dict[str, np.ndarray], finished: Path, name: str
) -> None:
    column = reader.column(name)
    np.testing.assert_array_equal(column, written[name])
    stored = zarr.open_group(finished, mode="r")[name]
    np.testing.assert_array_equal(np.asarray(stored[:]).astype(column.dtype), column)
    assert column.dtype.kind == "U" or column.dtype == stored.dtype


@pytest.mark.parametrize(
    "indices", [[9, 0, 4, 4, 3], np.array([7], np.int32), range(2, 6), [], slice(None, None, -3)]
)
def test_any_order_and_repetition(
    reader: Reader, written: dict[str, np.ndarray], indices: Any
) -> None:
    records = reader.read(indices, ARRAYS)
    where = indices if isinstance(indices, slice) else np.array(indices, np.int64)
    for name in ARRAYS:
        np.testing.assert_array_equal(records[name], written[name][where])
        records[name][...] = records[name]  # what is read may be written to


def test_the_first_views_are_a_prefix(reader: Reader, written: dict[str, np.ndarray]) -> None:
    """One view of five images in units of 4: the second unit is cut after its first record."""
    one = reader.first_views(1)
    assert (len(one), one.spec.num_views, one.spec.num_units) == (5, 1, 2)
    assert [list(one.spec.unit_records(unit)) for unit in range(2)] == [[0, 1, 2, 3], [4]]
    for name in ARRAYS:
        np.testing.assert_array_equal(one.column(name), written[name][:5])
        assert one.arrays[name].shape[0] == 5
    assert set(one.column("view_index")) == {0}
    with pytest.raises(IndexError, match="no record 5, there are 5"):
        one.read([5], ["labels"])
    assert (len(reader), len(reader.first_views(2))) == (10, 10)
    assert one.spec.fingerprint == reader.spec.fingerprint


@pytest.mark.parametrize("num_views", [0, 3])
def test_views_that_are_not_there(reader: Reader, num_views: int) -> None:
    with pytest.raises(StoreMismatchError, match="1 to 2"):
        reader.first_views(num_views)


def test_decoding_is_the_encodings(reader: Reader) -> None:
    for name in ("logits", "features"):
        arrays = reader.read([3, 1], list(reader.map_arrays(name).values()))
        decoded = reader.decode(name, arrays)
        assert decoded.dtype == np.float32
        expected = arrays[name].astype(np.float32)
        if name == "features":
            expected = expected * arrays["features_scale"][:, None]
        np.testing.assert_array_equal(decoded, expected)


def test_a_reader_travels_to_other_processes(reader: Reader) -> None:
    assert len(pickle.dumps(reader)) < 20_000
    expected = reader.column("logits")
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            np.testing.assert_array_equal(pool.apply(reader.column, ["logits"]), expected)


def test_records_and_arrays_that_are_not_there(reader: Reader) -> None:
    for index in (-1, 10):
        with pytest.raises(IndexError, match=f"no record {index}"):
            reader.read([0, index], ["labels"])
    with pytest.raises(StoreMismatchError, match="no such array"):
        reader.read([0], ["labels", "depth"])


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_file_is_an_error_with_the_key_and_never_zeros(store: Path, name: str) -> None:
    next((store / name).glob("c.1*")).unlink()
    reader = open_store(store)
    reader.read([0, 3, 8], [name])
    with pytest.raises(StoreDamagedError, match="missing") as damage:
        reader.read([0, 6], [name])
    key = "unknown" if name == "key" else "'train/é1'"
    assert re.search(rf"{name} of record 6, key {key}", str(damage.value))
    assert "what to do: " in str(damage.value)


@pytest.mark.parametrize("name", ARRAYS)
def test_every_flipped_byte_is_caught(store: Path, name: str) -> None:
    file = next((store / name).glob("c.1*"))
    whole, reader = file.read_bytes(), open_store(store)
    for position in sorted({*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}):
        file.write_bytes(_flip(whole, position))
        with pytest.raises(StoreDamagedError, match=f"{name} of record"):
            reader.column(name)
    for length in (0, 3, 4, 5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(StoreDamagedError, match=f"{name} of record"):
            reader.column(name)
    file.write_bytes(whole)
    reader.column(name)


def test_a_damaged_record_leaves_its_neighbours_readable(store: Path) -> None:
    file = store / "image" / "c.1.0.0.0"
    file.write_bytes(_flip(file.read_bytes(), 0))
    reader, broken = open_store(store), []
    for record in range(len(reader)):
        try:
            reader.read([record], ["image"])
        except StoreDamagedError:
            broken.append(record)
    assert len(broken) == 1
    assert broken[0] in reader.spec.unit_records(1)


def test_a_record_that_its_shard_lacks_is_damage_and_never_zeros(store: Path) -> None:
    # By default zarr drops a chunk that holds nothing but fill values.
    zarr.open_group(store, mode="r+")["image"][5] = 0
    reader = open_store(store)
    reader.read([4, 6], ["image"])
    with pytest.raises(StoreDamagedError, match="image of record 5, key 'train/é0'"):
        reader.read([4, 5], ["image"])


@pytest.mark.parametrize("name", ["", *ARRAYS])
def test_edited_metadata_is_refused(store: Path, name: str) -> None:
    metadata = store / name / "zarr.json"
    metadata.write_text(metadata.read_text().replace("fill_value", "fill_valve") + " ")
    with pytest.raises(StoreDamagedError, match="metadata was altered"):
        open_store(store)


@pytest.mark.parametrize("form", ["finished", "finished_hdf5"])
def test_only_the_expected_store_opens(
    request: pytest.FixtureRequest, form: str, make_spec: MakeSpec
) -> None:
    finished, spec = request.getfixturevalue(form), make_spec()
    assert len(open_store(finished, spec.fingerprint)) == 10
    assert len(open_store(finished, spec.identity)) == 10
    with pytest.raises(StoreMismatchError, match=f"found: {spec.fingerprint}"):
        open_store(finished, "0123456789abcdef")
    with pytest.raises(StoreMismatchError, match='sha256: expected "bb", found "aa"'):
        open_store(finished, {**spec.identity, "teacher": {"sha256": "bb"}})


def test_an_edited_identity_does_not_pass_for_another(store: Path) -> None:
    metadata = store / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"aa"', '"bb"'))
    with pytest.raises(StoreDamagedError, match="fingerprint"):
        open_store(store)


def test_what_is_no_store_is_told_apart(tmp_path: Path, store: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="dvc repro"):
        open_store(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreNotFoundError):
        open_store(tmp_path / "empty")
    with pytest.raises(StoreNotFoundError):
        open_store(store / "zarr.json")
    zarr.create_group(tmp_path / "other")
    with pytest.raises(StoreMismatchError, match="not a feature store"):
        open_store(tmp_path / "other")
    (store / "zarr.json").write_text("{")
    with pytest.raises(StoreDamagedError, match="not JSON"):
        open_store(store)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_another_schema_is_refused(store: Path, version: int) -> None:
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["schema_version"] = version
    (store / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreMismatchError, match="schema version"):
        open_store(store)


def test_an_unfinished_store_is_refused(
    make_spec: MakeSpec, make_unit: MakeUnit, tmp_path: Path
) -> None:
    with Writer.open(tmp_path, make_spec()) as writer:
        writer.write(0, make_unit(make_spec(), 0))
        with pytest.raises(StoreIncompleteError, match="2 missing"):
            open_store(tmp_path)
    shutil.rmtree(tmp_path / "image")
    with pytest.raises(StoreDamagedError, match="image"):
        open_store(tmp_path)


def _flip(content: bytes, position: int) -> bytes:
    spoiled = bytearray(content)
    spoiled[position] ^= 1 << position % 8
    return bytes(spoiled)


@pytest.mark.parametrize("features", ["uint8_per_channel", "int8_per_channel", "uint4_per_channel"])
@pytest.mark.parametrize("logits", ["float32", "uint8_affine", "top_3"])
def test_every_encoding_passes_through_a_store(
    make_spec: MakeSpec, make_unit: MakeUnit, tmp_path: Path, logits: str, features: str
) -> None:
    changes = {"num_classes": 5, "class_names": tuple("abcde"), "num_images": 2, "num_views": 1}
    spec = make_spec(logits, features, feature_channels=3, **changes)
    arrays = make_unit(spec, 0)
    with Writer.open(tmp_path, spec) as writer:
        writer.write(0, arrays)
    reader = open_store(tmp_path)
    assert reader.spec == spec
    for name in ("logits", "features"):
        encoding = getattr(spec, f"{name}_encoding")
        parts = {suffix: arrays[stored] for suffix, stored in reader.map_arrays(name).items()}
        decoded = reader.decode(name, reader.read([1, 0], list(reader.arrays)))
        np.testing.assert_array_equal(decoded, encoding.decode(parts)[::-1])
