"""Files of weights that params.yaml names, by their content."""

import hashlib
import sys
from pathlib import Path

import pytest

from pipeline.config import weights
from pipeline.config.params import Params
from pipeline.config.weights import hash_network_files, hash_weights_files


def test_each_file_is_told_by_its_content_and_all_else_by_none(
    tiny_params: Params, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.pt"
    path.write_bytes(b"weights")
    students = dict(tiny_params.students)
    students["r18_ce"] = students["r18_ce"].model_copy(update={"encoder_weights": str(path)})
    changed = tiny_params.model_copy(update={"students": students})
    found = hashlib.sha256(b"weights").hexdigest()
    expected = {**dict.fromkeys(students, "none"), "r18_ce": found}
    assert hash_weights_files(changed) == {"teacher": "none", "students": expected}
    for key in ("checkpoint", "backbone"):
        teacher = tiny_params.teacher.model_copy(update={key: str(path)})
        other = tiny_params.model_copy(update={"teacher": teacher})
        assert hash_weights_files(other)["teacher"] == found


def test_code_and_packages_are_files_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "fresh_nets.py").write_text("raise SystemExit('nobody imports it')")
    code = hashlib.sha256((tmp_path / "fresh_nets.py").read_bytes()).hexdigest()
    assert hash_network_files("fresh_nets:make", "none", None) == code
    (tmp_path / "teacher.pt").write_bytes(b"weights")
    both = hash_network_files("fresh_nets:make", str(tmp_path / "teacher.pt"))
    assert both == f"{code}+{hashlib.sha256(b'weights').hexdigest()}"
    monkeypatch.setitem(weights.PACKAGES, "tu-tf_efficientnet_lite0", "fresh_package:find")
    (tmp_path / "fresh_package.py").write_text("def find():\n    return __file__\n")
    package = hashlib.sha256((tmp_path / "fresh_package.py").read_bytes()).hexdigest()
    assert hash_network_files("deeplabv3_efficientnet_lite0", "package") == package
    assert hash_network_files("smp:fpn/tu-tf_efficientnet_lite0", "package") == package


@pytest.mark.parametrize("key", ["checkpoint", "backbone"])
def test_a_teacher_is_not_made_from_its_own_file(
    key: str, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC removes what a stage writes before the stage runs."""
    monkeypatch.chdir(tmp_path)
    name = tiny_params.teacher.name
    update = {key: str(tmp_path / "artifacts" / "teachers" / f"{name}.pt")}
    teacher = tiny_params.teacher.model_copy(update=update)
    with pytest.raises(ValueError, match=rf"teacher\.{key}: .*DVC removes it"):
        hash_weights_files(tiny_params.model_copy(update={"teacher": teacher}))
    renamed = teacher.model_copy(update={"name": "another"})
    hash_weights_files(tiny_params.model_copy(update={"teacher": renamed}))
