"""Packs: the student that went in comes out, the same bytes each time, and nothing else does."""

import json
import os
import pickle
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load, save

from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.params import Params
from pipeline.datasets.classes import class_table
from pipeline.models.card import write_card
from pipeline.models.network import build_network
from pipeline.models.pack import CONFIG, WEIGHTS
from pipeline.models.students import load_student, save_student
from stages.cli import main


@pytest.fixture
def student(tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny = Architecture("Tiny", "tiny_networks:tiny_student", "")
    monkeypatch.setitem(ARCHITECTURES, "tiny_student", tiny)
    settings = tiny_params.students["r18_ce"].model_copy(update={"architecture": "tiny_student"})
    classes = class_table("abc", ((1, 2, 3), (4, 5, 6), (7, 8, 9)), (7, 11, 33))
    save_student(build_network("tiny_student", 3), settings, classes, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def pack(student: Path, name: str) -> Path:
    path = student.parent / name
    words = ["pack", str(student), "-o", str(path), "--no-onnx"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return path


@pytest.mark.parametrize("name", ["pack", "pack.zip"])
def test_a_packed_student_is_the_same_bit_for_bit(student: Path, name: str) -> None:
    before, after = load_student(student), load_student(pack(student, name))
    assert (after.precision, after.classes) == (before.precision, before.classes)
    image = torch.randint(0, 256, (2, 3, 37, 51), dtype=torch.uint8)
    logits = [x.network.predict_logits(image, x.precision) for x in (before, after)]
    assert torch.equal(*logits)
    assert not list(student.parent.rglob("*.pt"))[1:]  # from safetensors alone


def test_the_same_student_gives_the_same_bytes(student: Path) -> None:
    one = pack(student, "one.zip").read_bytes()
    os.utime(student, (0, 0))
    assert pack(student, "other.zip").read_bytes() == one
    assert pack(student.parent / "one.zip", "again.zip").read_bytes() == one
    with ZipFile(student.parent / "one.zip") as archive:
        assert {member.external_attr >> 16 for member in archive.infolist()} == {0o644}


def test_a_folder_holds_one_pack_and_nothing_else_is_replaced(student: Path) -> None:
    folder = pack(student, "share")
    (folder / "model.onnx").write_bytes(b"of another student")
    pack(student, "share")
    assert sorted(x.name for x in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    own = student.parent / "project/README.md"
    own.parent.mkdir()
    own.write_text("mine")
    done = CliRunner().invoke(main, ["pack", str(student), "-o", str(own.parent), "--no-onnx"])
    assert done.exit_code == 1
    assert "expected no folder, an empty one or a pack; found README.md" in done.output
    assert own.read_text() == "mine"


def test_the_card_says_what_is_recorded(student: Path) -> None:
    run = {"params": {"method": "cirkd", "seed": 5, "terms": {"kd": 0.5}}, "commit": "abc123"}
    (student.parent / "run.json").write_text(json.dumps({**run, "num_flops": 2.5e9}))
    scores = {"split": "val", "miou": 0.5, "pixel_accuracy": 0.75}
    (student.parent / "evaluation.json").write_text(json.dumps(scores))
    card = (pack(student, "pack") / "README.md").read_text()
    for row in (
        "method | cirkd",
        "terms | kd 0.5, minibatch_pixel 1, memory_pixel 0.1, memory_region 0.1",
        "seed | 5",
        "commit | abc123",
    ):
        assert f"| {row} |" in card
    assert "| mIoU on val | 50.00 % |" in card
    assert "| FLOPs of a training view | 2.50 G |" in card
    assert "| teacher | not recorded |" in card


def rewrite(path: Path, changed: dict[str, bytes], compression: int = 0) -> None:
    with ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(path, "w", compression) as archive:
        for name, content in {**files, **changed}.items():
            archive.writestr(name, content)


def test_hostile_packs_are_refused(student: Path, tmp_path: Path) -> None:
    whole = pack(student, "pack.zip").read_bytes()
    with ZipFile(tmp_path / "pack.zip") as archive:
        config, weights = json.loads(archive.read(CONFIG)), load(archive.read(WEIGHTS))
    name = next(iter(weights))
    path_import = json.dumps({**config, "architecture": "os:system"}).encode()
    few_ids = json.dumps({**config, "label_ids": [1, 2]}).encode()
    cases = {
        "other name": {"../outside.txt": b"x"},
        "absolute": {"/tmp/outside.txt": b"x"},
        "pickle": {WEIGHTS: pickle.dumps({name: 1})},
        "shapes": {WEIGHTS: save({**weights, name: torch.zeros(1)})},
        "missing": {WEIGHTS: save({})},
        "no table": {CONFIG: b"[]"},
        "no json": {CONFIG: b"{"},
        "code": {CONFIG: path_import},
        "ids": {CONFIG: few_ids},
    }
    path = tmp_path / "hostile.zip"
    for changed in cases.values():
        path.write_bytes(whole)
        rewrite(path, changed)
        with pytest.raises(ValueError, match=r"hostile\.zip: "):
            load_student(path)
    path.write_bytes(whole)
    rewrite(path, {}, ZIP_DEFLATED)  # could expand without bound
    with pytest.raises(ValueError, match="compressed"):
        load_student(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"hostile\.zip: expected the pack of a student"):
        load_student(path)


def test_a_folder_without_its_weights_is_named(student: Path) -> None:
    folder = pack(student, "pack")
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file"):
        load_student(folder)


def test_the_card_of_a_network_of_ones_own_says_that_its_code_is_elsewhere(student: Path) -> None:
    network = load_student(student).network
    unknown = write_card(network, ("a",), {}, {}, {})
    assert "not in this pack" not in unknown
    assert "| terms | not recorded |" in unknown
    network.architecture = "mynets:make"
    card = write_card(network, ("a",), {}, {}, {})
    assert "The code of `mynets:make` is not in this pack" in card
