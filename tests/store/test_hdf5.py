import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from store.errors import (
    StoreDamagedError,
    StoreError,
    StoreIncompleteError,
    StoreMismatchError,
    StoreNotFoundError,
)
from store.hdf5 import from_hdf5, to_hdf5
from store.layout import JOURNAL
from store.reader import open_store
from store.schema import SCHEMA_VERSION, StoreSpec
from store.verify import verify
from store.writer import Writer

MakeSpec = Callable[..., StoreSpec]


@pytest.fixture
def file(finished_hdf5: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copy(finished_hdf5, tmp_path / "copy.h5"))


def test_there_and_back_is_the_same_store_bit_for_bit(
    finished: Path, finished_hdf5: Path, tmp_path: Path
) -> None:
    manifest = from_hdf5(finished_hdf5, tmp_path / "back")
    assert manifest.digest == open_store(finished).journal.digest
    for file in finished.rglob("*"):
        if file.is_file() and file.name != "lock":
            copy = tmp_path / "back" / file.relative_to(finished)
            assert copy.read_bytes() == file.read_bytes()
    assert verify(tmp_path / "back") == []


def test_the_copy_says_the_same_of_itself(finished: Path, finished_hdf5: Path) -> None:
    original, copy = open_store(finished), open_store(finished_hdf5)
    assert copy.spec == original.spec
    assert copy.journal == original.journal
    with h5py.File(finished_hdf5) as hdf5:
        assert hdf5["logits"].chunks == (1, 3, 2, 4)
        assert hdf5["region_center"].chunks == (4, 3, 4)
        assert [axis.label for axis in hdf5["labels"].dims] == ["record", "y", "x"]


def test_a_store_of_some_targets_goes_there_and_back(
    make_spec: MakeSpec, fill: Callable[..., str], tmp_path: Path
) -> None:
    digest = fill(tmp_path / "store", make_spec(targets=("logits",)))
    assert verify(tmp_path / "store") == []
    to_hdf5(tmp_path / "store", tmp_path / "store.h5")
    assert set(open_store(tmp_path / "store.h5").arrays) == set(
        open_store(tmp_path / "store").arrays
    )
    assert from_hdf5(tmp_path / "store.h5", tmp_path / "back").digest == digest


def test_stride_and_channels_are_attributes_of_the_store_and_of_its_copy(
    make_spec: MakeSpec, fill: Callable[..., str], tmp_path: Path
) -> None:
    spec = make_spec(stride=4, feature_height=4, feature_width=8, feature_channels=5)
    fill(tmp_path / "store", spec)
    to_hdf5(tmp_path / "store", tmp_path / "store.h5")
    zarr = json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]
    with h5py.File(tmp_path / "store.h5") as hdf5:
        attributes = dict(hdf5.attrs)
    assert zarr["schema_version"] == attributes["schema_version"] == SCHEMA_VERSION
    for described in (zarr["spec"], json.loads(attributes["spec"])):
        assert (described["stride"], described["feature_channels"]) == (4, 5)
    assert open_store(tmp_path / "store").spec == open_store(tmp_path / "store.h5").spec == spec


def test_a_copy_that_was_cut_short_goes_on(
    make_spec: MakeSpec, finished_hdf5: Path, finished: Path, tmp_path: Path
) -> None:
    reader = open_store(finished_hdf5)
    with Writer.open(tmp_path, make_spec()) as writer:
        writer.write(1, reader.read(range(4, 8), list(reader.arrays)))
    assert from_hdf5(finished_hdf5, tmp_path).digest == open_store(finished).journal.digest


def test_nothing_is_overwritten_and_nothing_half_done_is_left(
    make_spec: MakeSpec, finished: Path, store: Path, file: Path, tmp_path: Path
) -> None:
    before = file.read_bytes()
    with pytest.raises(StoreMismatchError, match="the file exists"):
        to_hdf5(finished, file)
    assert file.read_bytes() == before
    with pytest.raises(StoreMismatchError, match="copy the file"):
        to_hdf5(file, tmp_path / "new.h5")
    next((store / "features").glob("c.2*")).unlink()
    with pytest.raises(StoreDamagedError, match="features of unit 2"):
        to_hdf5(store, tmp_path / "new.h5")
    with Writer.open(store, make_spec()) as writer:
        writer.revoke(0)
    with pytest.raises(StoreIncompleteError):
        to_hdf5(store, tmp_path / "new.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy.h5", "store"]


def test_no_flipped_bit_passes_for_content(file: Path) -> None:
    reader = open_store(file)
    expected = {name: reader.column(name) for name in reader.arrays}
    whole, rng, caught = file.read_bytes(), np.random.default_rng(0), 0
    for position in rng.integers(len(whole), size=80):
        spoiled = bytearray(whole)
        spoiled[position] ^= 1 << int(rng.integers(8))
        file.unlink()
        file.write_bytes(spoiled)
        try:
            damaged = open_store(file)
            # Some bytes of an HDF5 file hold nothing: flipping them changes nothing.
            assert all((damaged.column(name) == expected[name]).all() for name in expected)
        except StoreError:
            caught += 1
    assert caught > 20


def test_a_chunk_that_was_never_written_is_damage_and_never_zeros(file: Path) -> None:
    with h5py.File(file, "r+") as hdf5:
        shape, chunks = hdf5["image"].shape, hdf5["image"].chunks
        del hdf5["image"]
        hdf5.create_dataset("image", shape, np.uint8, chunks=chunks)
    with pytest.raises(StoreDamagedError, match="image"):
        open_store(file)


@pytest.mark.parametrize("missing", ["logits", "key", JOURNAL])
def test_an_array_that_is_gone_is_damage(file: Path, missing: str) -> None:
    with h5py.File(file, "r+") as hdf5:
        del hdf5[missing]
    with pytest.raises(StoreDamagedError, match=missing):
        open_store(file)


def test_what_is_no_store_is_told_apart(file: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        open_store(tmp_path / "nowhere.h5")
    with h5py.File(tmp_path / "other.hdf5", "w"):
        pass
    with pytest.raises(StoreMismatchError, match="not a feature store"):
        open_store(tmp_path / "other.hdf5")
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(StoreDamagedError, match="the file is damaged"):
        open_store(file)


def swap_units(store: Path) -> None:
    """Each file is whole, checksums and all, but lies in the place of the other."""
    one, other = store / "image" / "c.0.0.0.0", store / "image" / "c.1.0.0.0"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def test_a_copy_does_not_make_damage_whole(store: Path, file: Path, tmp_path: Path) -> None:
    swap_units(store)
    with pytest.raises(StoreDamagedError, match=r"image of unit 0(.|\n)*cirkd store repair"):
        to_hdf5(store, tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()
    with h5py.File(file, "r+") as hdf5:
        hdf5["image"][:] = hdf5["image"][:][::-1]
    with pytest.raises(StoreDamagedError, match="image of unit 0"):
        from_hdf5(file, tmp_path / "back")
    with pytest.raises(StoreIncompleteError):
        open_store(tmp_path / "back")


@pytest.mark.parametrize("name", ["store.hdf", "store"])
def test_a_name_that_would_not_open_is_refused_before_anything_is_read(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(StoreMismatchError, match=r"\.h5 or \.hdf5"):
        to_hdf5(tmp_path / "nowhere", tmp_path / name)


def test_what_a_killed_copy_left_is_removed_by_the_next(finished: Path, tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    host = socket.gethostname()
    left = tmp_path / f"store.h5.{host}-{dead}-1.partial"
    alive = tmp_path / f"store.h5.{host}-{os.getpid()}-1.partial"
    elsewhere = tmp_path / f"store.h5.another-host-{dead}-1.partial"
    for partial in (left, alive, elsewhere):
        partial.write_bytes(b"half")
    to_hdf5(finished, tmp_path / "store.h5")
    assert {alive, elsewhere} == set(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "link", [h5py.SoftLink("/image_2"), h5py.ExternalLink("other.h5", "/image_2")]
)
@pytest.mark.parametrize("name", ["image", JOURNAL, "sha256", "sha256/image"])
def test_links_are_damage_wherever_they_lead(file: Path, name: str, link: object) -> None:
    """What a link leads to is equal, bit for bit."""
    with h5py.File(file, "r+") as hdf5, h5py.File(file.with_name("other.h5"), "w") as other:
        hdf5.copy(name, other, "image_2")
        hdf5.move(name, "image_2")
        hdf5[name] = link
    assert {finding.array for finding in verify(file)} & {"image", None}
    if name in ("image", JOURNAL):
        with pytest.raises(StoreDamagedError):
            open_store(file)
