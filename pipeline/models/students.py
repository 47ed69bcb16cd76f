"""The files of trained students: all that predicting with one needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.config.architectures import refuse_unnamed
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
    named = {
        "architecture": config.architecture,
        "feature_layer": config.feature_layer,
        "precision": config.training.precision,
    }
    state = {name: x for name, x in student.state_dict().items() if not student.is_auxiliary(name)}
    save_torch({**named, "class_names": list(class_names), "state_dict": state}, path)


def load_student(path: Path, named: Collection[str] = ()) -> tuple[Network, str]:
    """Read a student written by `save_student`, in eval mode, and its precision.

    Args:
        path: the file.
        named: architectures of params.yaml, the only import paths that may be called.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds no student, or one of code that is not named.
    """
    what, hint = "a trained student", "delete it and run `dvc repro` to train it"
    saved = load_torch(path, what, hint)
    with reading(path, what, hint):
        architecture, feature_layer = str(saved["architecture"]), saved.get("feature_layer")
    refuse_unnamed(architecture, named, path)
    with reading(path, what, hint):
        num_classes = len(saved["class_names"])
        student = build_network(architecture, num_classes, feature_layer=feature_layer)
        student.drop_auxiliary()
        student.load_state_dict(saved["state_dict"])
        return student.eval(), saved["precision"]
