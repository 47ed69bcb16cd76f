"""Files of weights that params.yaml names, by their content."""

import hashlib
import sys
from pathlib import Path

import pytest

from pipeline.config import weights
from pipeline.config.params import Params
from pipeline.config.weights import hash_student_files, hash_weights_files


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
    teacher = tiny_params.teacher.model_copy(update={"checkpoint": str(path)})
    other = tiny_params.model_copy(update={"teacher": teacher})
    assert hash_weights_files(other)["teacher"] == found


def test_the_code_of_a_student_and_its_package_are_files_as_well(
    tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "fresh_nets.py").write_text("raise SystemExit('nobody imports it')")
    student = tiny_params.students["r18_ce"]
    imported = student.model_copy(update={"architecture": "fresh_nets:make"})
    content = (tmp_path / "fresh_nets.py").read_bytes()
    assert hash_student_files(imported) == hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(weights.PACKAGES, "tu-tf_efficientnet_lite0", "fresh_package:find")
    (tmp_path / "fresh_package.py").write_text("def find():\n    return __file__\n")
    change = {"architecture": "deeplabv3_efficientnet_lite0", "encoder_weights": "package"}
    content = (tmp_path / "fresh_package.py").read_bytes()
    found = hash_student_files(student.model_copy(update=change))
    assert found == hashlib.sha256(content).hexdigest()
