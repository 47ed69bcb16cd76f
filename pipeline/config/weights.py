"""The files of weights that params.yaml names: what lies in them is an input as all others are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.config.params import Params


def hash_weights_file(path: str | None) -> str:
    """Return the SHA-256 of a file's content; "none" if there is no such file, but a name, say."""
    if path is None or not Path(path).is_file():
        return "none"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_weights_files(params: Params) -> dict[str, Any]:  # JSON
    """Hash the file of the teacher and of each student, for DVC to compare one by one."""
    return {
        "teacher": hash_weights_file(params.teacher.checkpoint or params.teacher.backbone),
        "students": {
            run: hash_weights_file(student.encoder_weights)
            for run, student in params.students.items()
        },
    }
