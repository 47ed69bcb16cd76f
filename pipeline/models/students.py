"""The files of trained students: all that predicting with one needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.params import StudentConfig
from pipeline.models.network import Network, build_network
from pipeline.runtime.checkpoint import load_torch, save_torch
from store.files import reading


def save_student(
    student: Network, config: StudentConfig, class_names: Sequence[str], path: Path
) -> None:
    """Write the weights without the auxiliary head, which only training needs, and what they need.

    Args:
        student: trained.
        config: its architecture, and the precision it was trained, and is to be measured, in.
        class_names: of the dataset.
        path: the file.
    """
    named = {"architecture": config.architecture, "precision": config.training.precision}
    state = {name: x for name, x in student.state_dict().items() if not student.is_auxiliary(name)}
    save_torch({**named, "class_names": list(class_names), "state_dict": state}, path)


def load_student(path: Path) -> tuple[Network, str]:
    """Read a student written by `save_student`, in eval mode, and its precision.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds no student.
    """
    what, hint = "a trained student", "delete it and run `dvc repro` to train it"
    saved = load_torch(path, what, hint)
    with reading(path, what, hint):
        student = build_network(saved["architecture"], len(saved["class_names"]))
        student.drop_auxiliary()
        student.load_state_dict(saved["state_dict"])
        return student.eval(), saved["precision"]
