"""Files of weights that params.yaml names, by their content."""

import hashlib
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.weights import hash_weights_files


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
