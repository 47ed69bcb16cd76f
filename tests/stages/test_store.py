"""`cirkd store`: what it says of a whole store, and of a damaged one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from stages.cli import main
from store.manifest import Manifest


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["store", *map(str, arguments)])


@pytest.fixture
def copied(manifest: Path, tmp_path: Path) -> Path:
    """A manifest of a copy that may be damaged."""
    original = Manifest.read(manifest)
    shutil.copytree(original.path, tmp_path / "copy")
    replace(original, path=str(tmp_path / "copy")).write(tmp_path / "copy.json")
    return tmp_path / "copy.json"


def test_info_names_every_array_and_its_compression(manifest: Path) -> None:
    shown = run("info", manifest)
    assert shown.exit_code == 0, shown.output
    found = json.loads(run("info", manifest, "--json").output)
    assert found["num_records"] == 6
    for name, sizes in found["arrays"].items():
        assert name in shown.output
        assert sizes["stored_bytes"] > 0
    assert found["spec"]["identity"]["teacher"]["sha256"] == "tiny teacher"


def test_a_record_is_drawn(manifest: Path, tmp_path: Path) -> None:
    assert run("info", manifest, "--figure", tmp_path / "one.png", "--record", 3).exit_code == 0
    with Image.open(tmp_path / "one.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50
    absent = run("info", manifest, "--figure", tmp_path / "two.png", "--record", 99)
    assert absent.exit_code == 1
    assert "no record 99" in absent.output
    assert not (tmp_path / "two.png").exists()


def test_verify_says_whole_and_finds_damage(copied: Path) -> None:
    whole = run("verify", copied)
    assert (whole.exit_code, whole.output) == (0, "whole\n")
    target = next((copied.parent / "copy/features").glob("c*"))
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(bytes(content))
    damaged = run("verify", copied, "--json")
    assert damaged.exit_code == 1
    (finding,) = json.loads(damaged.output)["findings"]
    assert finding["array"] == "features"
    assert "1 findings" in run("verify", copied).output


def test_spot_needs_a_teacher(manifest: Path) -> None:
    refused = run("verify", manifest, "--spot", 2)
    assert refused.exit_code == 2
    assert "--index and --teacher" in refused.output


def test_hdf5_there_and_back(manifest: Path, tmp_path: Path) -> None:
    assert run("to-hdf5", manifest, tmp_path / "store.h5").exit_code == 0
    stores = tmp_path / "stores"
    back = run("from-hdf5", tmp_path / "store.h5", tmp_path / "back.json", "--stores", stores)
    assert back.exit_code == 0, back.output
    one, other = Manifest.read(manifest), Manifest.read(tmp_path / "back.json")
    assert (one.digest, one.fingerprint) == (other.digest, other.fingerprint)
    again = run("to-hdf5", manifest, tmp_path / "store.h5")
    assert again.exit_code == 1
    assert "exists" in again.output


def test_an_hdf5_copy_is_adopted_and_is_then_a_store_like_any_other(
    manifest: Path, tmp_path: Path
) -> None:
    file, adopted = tmp_path / "store.h5", tmp_path / "adopted.json"
    assert run("to-hdf5", manifest, file).exit_code == 0
    done = run("adopt", file, adopted)
    assert done.exit_code == 0, done.output
    assert Manifest.read(adopted) == replace(Manifest.read(manifest), path=str(file))
    assert run("verify", adopted).output == "whole\n"
    assert json.loads(run("info", adopted, "--json").output)["stored_bytes"] > 0
    with h5py.File(file, "r+") as hdf5:
        hdf5["labels"][5] = 255 - hdf5["labels"][5]
    damaged = run("verify", adopted)
    assert damaged.exit_code == 1
    assert "labels[4:6]: values are not those that were copied" in damaged.output
    refused = run("repair", "index.json", "teacher.pt", adopted)
    assert refused.exit_code == 1
    assert "only a local folder can be written" in refused.output


def test_what_is_no_store_is_not_adopted(tmp_path: Path) -> None:
    refused = run("adopt", tmp_path / "nowhere", tmp_path / "adopted.json")
    assert refused.exit_code == 1
    assert "no store here" in refused.output
    assert not (tmp_path / "adopted.json").exists()


def test_another_store_in_the_place_of_the_manifests_is_found(copied: Path) -> None:
    replace(Manifest.read(copied), digest="0" * 64).write(copied)
    refused = run("verify", copied)
    assert refused.exit_code == 1
    assert "another store" in refused.output


@pytest.mark.parametrize("what", ["info", "verify", "to-hdf5"])
def test_an_absent_manifest_is_a_message(what: str, tmp_path: Path) -> None:
    arguments = [what, tmp_path / "absent.json", *([tmp_path / "x.h5"] * (what == "to-hdf5"))]
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "absent.json" in refused.output
    assert "Traceback" not in refused.output
