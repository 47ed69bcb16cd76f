import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest

from store.audit import audit
from store.errors import StoreDamagedError, StoreNotFoundError
from store.layout import JOURNAL
from store.reader import open_store
from store.schema import StoreSpec, array_specs
from store.verify import damaged_units, verify
from store.writer import Writer

MakeSpec = Callable[..., StoreSpec]


def unit_file(store: Path, name: str, unit: int) -> Path:
    return next((store / name).glob(f"c.{unit}*"))


def flip_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)


def flip(store: Path, name: str) -> None:
    if store.is_file():
        with h5py.File(store) as hdf5:
            dataset = hdf5[name].id
            chunk = dataset.get_chunk_info_by_coord((4,) + (0,) * (dataset.rank - 1))
        flip_bit(store, chunk.byte_offset + chunk.size // 3)
    else:
        file = unit_file(store, name, 1)
        flip_bit(file, file.stat().st_size // 3)


def delete(store: Path, name: str) -> None:
    if store.is_file():
        with h5py.File(store, "r+") as hdf5:
            del hdf5[name]
    else:
        unit_file(store, name, 1).unlink()


def swap(store: Path, name: str) -> None:
    """Each piece is whole, checksum and all, but lies in the place of the other."""
    if store.is_file():
        swap_chunks(store, name)
        return
    a, b = unit_file(store, name, 0), unit_file(store, name, 1)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    # A column may be equal in two units: then nothing was swapped, and nothing is wrong.
    b.write_bytes(first if first != second else first + b"0")


def swap_chunks(file: Path, name: str) -> None:
    with h5py.File(file, "r+") as hdf5:
        dataset = hdf5[name]
        places = [(first,) + (0,) * (dataset.ndim - 1) for first in (0, 4)]
        (_, first), (_, second) = (dataset.id.read_direct_chunk(place) for place in places)
        if first == second:
            dataset[4] = dataset[4] == 0
        else:
            dataset.id.write_direct_chunk(places[0], second)
            dataset.id.write_direct_chunk(places[1], first)


def truncate(store: Path, name: str) -> None:
    file = unit_file(store, name, 1)
    os.truncate(file, file.stat().st_size - 1)


def edit_metadata(store: Path, name: str) -> None:
    file = store / name / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["note"] = "harmless?"
    file.write_text(json.dumps(metadata))


def delete_metadata(store: Path, name: str) -> None:
    (store / name / "zarr.json").unlink()


def other_dtype(file: Path, name: str) -> None:
    with h5py.File(file, "r+") as hdf5:
        old = hdf5[name]
        values, chunks = np.zeros(old.shape, np.complex64), old.chunks
        del hdf5[name]
        hdf5.create_dataset(name, data=values, chunks=chunks, fletcher32=True)


def other_values(file: Path, name: str) -> None:
    """Written by HDF5 itself, so that every checksum is right."""
    with h5py.File(file, "r+") as hdf5:
        values = hdf5[name][4]
        hdf5[name][4] = b"other" if name == "key" else values == 0


BOTH = [flip, delete, swap]
DAMAGES = [
    *(("store", damage) for damage in (*BOTH, truncate, edit_metadata, delete_metadata)),
    *(("hdf5", damage) for damage in (*BOTH, other_dtype, other_values)),
]


@pytest.fixture
def hdf5(finished_hdf5: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copy(finished_hdf5, tmp_path / "copy.h5"))


@pytest.mark.parametrize("form", ["finished", "finished_hdf5"])
def test_a_whole_store_has_no_findings(request: pytest.FixtureRequest, form: str) -> None:
    path = request.getfixturevalue(form)
    digest = open_store(path).journal.digest
    assert verify(path, digest=digest) == []
    (finding,) = verify(path, digest="ab" * 32)
    assert "another store" in finding.what
    assert digest in finding.what


@pytest.mark.parametrize(("form", "damage"), DAMAGES)
def test_every_damage_is_found_in_every_array(
    request: pytest.FixtureRequest,
    make_spec: MakeSpec,
    form: str,
    damage: Callable[[Path, str], None],
) -> None:
    path: Path = request.getfixturevalue(form)
    names, found = list(array_specs(make_spec())), 0
    for name in names:
        files = [path] if path.is_file() else list((path / name).iterdir())
        before = {file: file.read_bytes() for file in files}
        damage(path, name)
        findings = verify(path)
        found += {finding.array for finding in findings} == {name}
        of_units = [finding for finding in findings if finding.unit is not None]
        assert bool(of_units) == ("metadata" not in damage.__name__)
        for finding in of_units:
            assert finding.record == finding.unit * 4
            assert (finding.key is None) == (name == "key")
        assert 1 in damaged_units(findings) or not of_units
        for file, content in before.items():
            file.write_bytes(content)
    assert found == len(names) == 20
    assert verify(path) == []


def test_several_faults_are_all_listed(store: Path) -> None:
    flip(store, "image")
    delete(store, "key")
    edit_metadata(store, "logits")
    (store / "image" / "c.7.0.0.0").write_bytes(b"nobody's")
    findings = verify(store)
    assert {finding.file for finding in findings} == {
        "logits/zarr.json",
        "image/c.7.0.0.0",
        "image/c.1.0.0.0",
        "key/c.1",
    }
    assert damaged_units(findings) == [1]
    json.dumps([finding.to_dict() for finding in findings])


def test_missing_units_and_broken_cornerstones(make_spec: MakeSpec, store: Path) -> None:
    with Writer.open(store, make_spec()) as writer:
        writer.revoke(2)
    assert damaged_units(verify(store)) == [2]
    (store / JOURNAL).write_text("nonsense\n")
    assert [finding.file for finding in verify(store)] == [JOURNAL]
    (store / "zarr.json").write_text("nonsense")
    assert [finding.file for finding in verify(store)] == ["zarr.json"]
    with pytest.raises(StoreNotFoundError):
        verify(store / "nowhere")


def without(name: str) -> Callable[[Path], None]:
    def remove(file: Path) -> None:
        with h5py.File(file, "r+") as hdf5:
            del hdf5[name]

    return remove


def add_notes(file: Path) -> None:
    with h5py.File(file, "r+") as hdf5:
        hdf5["notes"] = 1


@pytest.mark.parametrize(
    ("damage", "places"),
    [
        (add_notes, {"notes"}),
        (without("sha256/top"), {"top[0:4]", "top[4:8]", "top[8:10]"}),
        (without(JOURNAL), {JOURNAL}),
        (lambda file: os.truncate(file, file.stat().st_size // 2), {"copy.h5"}),
    ],
)
def test_a_broken_hdf5_file_is_a_finding_and_not_an_error(
    hdf5: Path, damage: Callable[[Path], None], places: set[str]
) -> None:
    damage(hdf5)
    assert {one.file.removeprefix(f"{hdf5.parent}/") for one in verify(hdf5)} == places


def folder_in_place(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "note").write_text("not a chunk")


def pipe_in_place(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def broken_disk(file: Path) -> None:
    """A link to itself cannot be opened: what reading then raises is an OSError, as EIO is."""
    file.unlink()
    file.symlink_to(file)


@pytest.mark.parametrize("damage", [folder_in_place, pipe_in_place, broken_disk])
def test_what_cannot_be_read_is_a_finding_and_is_replaced(
    make_spec: MakeSpec,
    fill: Callable[..., str],
    finished: Path,
    store: Path,
    damage: Callable[[Path], None],
) -> None:
    damage(unit_file(store, "image", 1))
    findings = verify(store)
    assert [(one.array, one.unit) for one in findings] == [("image", 1)]
    with pytest.raises(StoreDamagedError, match="image of record 4"):
        open_store(store).column("image")
    with Writer.open(store, make_spec()) as writer:
        writer.revoke(1)
    assert fill(store, make_spec()) == open_store(finished).journal.digest
    assert verify(store) == []


@pytest.mark.parametrize("name", ["zarr.json", "image/zarr.json", JOURNAL])
@pytest.mark.parametrize("damage", [folder_in_place, pipe_in_place, broken_disk])
def test_metadata_that_cannot_be_read_is_a_finding(
    store: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(store / name)
    assert [one.file for one in verify(store)] == [name]


def test_what_a_killed_worker_left_is_no_fault(
    make_spec: MakeSpec, fill: Callable[..., str], store: Path
) -> None:
    left = store / "image" / "c.1.0.0.0.elsewhere-7-7.partial"
    left.write_bytes(b"half")
    assert verify(store) == []
    audit(open_store(store))
    with Writer.open(store, make_spec()) as writer:
        left.write_bytes(b"half")
        writer.finish()
    assert not left.exists()


@pytest.mark.parametrize("name", ["image", "region_center", "key"])
@pytest.mark.parametrize("claimed", [2**30, 10**11])
def test_a_chunk_is_not_unpacked_beyond_the_schema(store: Path, name: str, claimed: int) -> None:
    """A frame of 20 bytes that says it holds gigabytes, behind checksums that are right."""
    frame = b"\x28\xb5\x2f\xfd\xe0" + claimed.to_bytes(8, "little") + b"\x01\0\0" + b"0" * 4
    chunk = frame + google_crc32c.value(frame).to_bytes(4, "big")[::-1]
    if name == "image":
        index = np.tile(np.array([0, len(chunk)], "<u8"), 4).tobytes()
        chunk += index + google_crc32c.value(index).to_bytes(4, "big")[::-1]
    unit_file(store, name, 1).write_bytes(chunk)
    with pytest.raises(StoreDamagedError, match=f"{claimed} bytes in place of"):
        open_store(store).column(name)
