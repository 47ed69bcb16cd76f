"""The files of trained students: all that predicting with one needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipeline.config.architectures import refuse_unnamed
from pipeline.config.base import Precision
from pipeline.config.params import StudentConfig
from pipeline.datasets.classes import class_table
from pipeline.datasets.index import ClassTable
from pipeline.models.network import Network, build_network
from pipeline.models.pack import is_pack, main_file, read_pack
from pipeline.runtime.checkpoint import load_torch, save_torch
from pipeline.runtime.rng import seed_torch
from store.files import reading
from store.schema import StoreSpec

WHAT, HINT = "a trained student", "train it again with `dvc repro -f -s train@RUN`"


@dataclass(frozen=True)
class Student:
    """A trained student as its file has it.

    Attributes:
        network: in eval mode, without the auxiliary head.
        precision: it was trained, and is to be measured, in.
        classes: of its dataset, without what stands for void.
    """

    network: Network
    precision: str
    classes: ClassTable


def build_student(config: StudentConfig, num_classes: int) -> Network:
    """Build a student from its seed, with the encoder weights that its settings name."""
    seed_torch(config.seed, "student", "weights")
    return build_network(
        config.architecture, num_classes, config.encoder_weights, config.feature_layer
    )


def stored_classes(spec: StoreSpec) -> ClassTable:
    """Return the classes of a store; one of before palettes were recorded gets default ones."""
    recorded = (spec.provenance.get(name) for name in ("palette", "label_ids"))
    return class_table(spec.class_names, *recorded)


def describe_classes(classes: ClassTable) -> dict[str, list[Any]]:
    """Return what files hold of the classes, as JSON values."""
    return {
        "class_names": list(classes.names),
        "palette": [list(colour) for colour in classes.palette],
        "label_ids": list(classes.label_ids),
    }


def save_student(student: Network, config: StudentConfig, classes: ClassTable, path: Path) -> None:
    """Write the weights without the auxiliary head, which only training needs, and what they need.

    Args:
        student: trained.
        config: its architecture, and the precision it was trained, and is to be measured, in.
        classes: of the dataset.
        path: the file.
    """
    state = {name: x for name, x in student.state_dict().items() if not student.is_auxiliary(name)}
    saved = {
        "architecture": config.architecture,
        "feature_layer": config.feature_layer,
        "precision": config.training.precision,
        **describe_classes(classes),
        "state_dict": state,
    }
    save_torch(saved, path)


def load_student(path: Path | str, named: Collection[str] = ()) -> Student:
    """Read a student written by `save_student` or `write_pack`.

    Args:
        path: the file, or the folder or zip of a pack.
        named: architectures of params.yaml, the only import paths that may be called.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds no student, or one of code that is not named.
    """
    saved, path = read_saved(Path(path)), main_file(Path(path))
    with reading(path, WHAT, HINT):
        architecture, feature_layer = str(saved["architecture"]), saved.get("feature_layer")
    refuse_unnamed(architecture, named, path)
    with reading(path, WHAT, HINT):
        classes = class_table(*(saved.get(x) for x in ("class_names", "palette", "label_ids")))
        network = build_network(architecture, len(classes.names), feature_layer=feature_layer)
        network.drop_auxiliary()
        network.load_state_dict(saved["state_dict"])
        if (precision := saved["precision"]) not in get_args(Precision):
            raise ValueError(f"precision {precision}")
        return Student(network.eval(), precision, classes)


def read_saved(path: Path) -> Any:  # of whatever type was saved
    """Read what a student's file or pack holds."""
    return read_pack(path) if is_pack(path) else load_torch(path, WHAT, HINT)
