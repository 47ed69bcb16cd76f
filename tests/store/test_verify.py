import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import StoreNotFoundError
from store.layout import JOURNAL
from store.schema import StoreSpec, array_specs
from store.verify import damaged_units, verify
from store.writer import Writer

MakeSpec = Callable[..., StoreSpec]


def unit_file(store: Path, name: str, unit: int) -> Path:
    return next((store / name).glob(f"c.{unit}*"))


def flip(store: Path, name: str) -> None:
    file = unit_file(store, name, 1)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def truncate(store: Path, name: str) -> None:
    file = unit_file(store, name, 1)
    os.truncate(file, file.stat().st_size - 1)


def delete(store: Path, name: str) -> None:
    unit_file(store, name, 1).unlink()


def swap(store: Path, name: str) -> None:
    a, b = unit_file(store, name, 0), unit_file(store, name, 1)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    # A column may be equal in two units: then nothing was swapped, and nothing is wrong.
    b.write_bytes(first if first != second else first + b"0")


def edit_metadata(store: Path, name: str) -> None:
    file = store / name / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["note"] = "harmless?"
    file.write_text(json.dumps(metadata))


def delete_metadata(store: Path, name: str) -> None:
    (store / name / "zarr.json").unlink()


DAMAGES = [flip, truncate, delete, swap, edit_metadata, delete_metadata]


def test_a_whole_store_has_no_findings(finished: Path) -> None:
    assert verify(finished) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_found_in_every_array(
    make_spec: MakeSpec, store: Path, damage: Callable[[Path, str], None]
) -> None:
    names, found = list(array_specs(make_spec())), 0
    for name in names:
        before = {file: file.read_bytes() for file in (store / name).iterdir()}
        damage(store, name)
        findings = verify(store)
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
    assert verify(store) == []


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
