"""The teacher: a network trained, published or from a checkpoint; its file and its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import Bottleneck

from pipeline.config.base import validate
from pipeline.config.params import TeacherConfig
from pipeline.datasets.classes import check_classes
from pipeline.models.network import Network, build_network
from pipeline.models.pooled import pool
from pipeline.models.published import fetch
from pipeline.runtime.checkpoint import hash_weights, list_misfits, load_weights, save_torch
from pipeline.runtime.rng import seed_torch
from store.files import reading

REMAKE = "correct it, or run `dvc repro -f -s teacher`"


class TeacherError(ValueError):
    """Weights that do not fit the architecture or the dataset."""


@dataclass(frozen=True)
class TeacherCard:
    """What is known of a teacher beside its weights: the JSON next to the file."""

    architecture: str
    class_names: list[str]
    source: str
    sha256: str
    val: dict[str, Any]  # JSON: what `evaluation.summarise` returned
    num_parameters: int
    seconds: float
    stride: int | None = None  # this and the next as params.yaml declared them
    feature_layer: str | None = None

    @classmethod
    def read(cls, path: Path) -> TeacherCard:
        """Read the JSON of a teacher."""
        with reading(path, "the card of a teacher", REMAKE):
            return validate(cls, json.loads(path.read_bytes()))

    def load(self, path: Path, class_names: Sequence[str]) -> Network:
        """Load the teacher that this is the card of, as `load_teacher` does.

        Raises:
            ValueError: it knows other classes than these, or in another order.
        """
        hint = "give a teacher of this dataset, or run `dvc repro teacher`"
        check_classes(str(path), self.class_names, class_names, hint)
        declared = (self.stride, self.feature_layer)
        return load_teacher(path, len(class_names), self.architecture, self.sha256, *declared)


def build_teacher(settings: TeacherConfig, class_names: Sequence[str]) -> Network:
    """Build a teacher with fresh weights from its seed, or with those its source names.

    Without a pretrained backbone, residual blocks start as the identity (zero last batch norm),
    which lets a ResNet101 learn from scratch in a few hundred steps.

    Args:
        settings: of the teacher.
        class_names: of the dataset, by id.

    Raises:
        ValueError: weights cannot be read, or do not fit the architecture or the dataset.
    """
    seed_torch(settings.seed, "teacher", "weights")
    teacher = build_network(
        settings.architecture, len(class_names), settings.backbone, settings.feature_layer
    )
    for layer in teacher.dropouts:
        layer.p = settings.dropout
    if settings.source == "torchvision":
        state = _published(settings.architecture, settings.weights, class_names)
        _load(teacher, state, f"weights {settings.weights}", len(class_names))
    elif settings.source == "checkpoint":
        path = Path(str(settings.checkpoint))
        _load(teacher, _read_state(path), str(path), len(class_names))
    elif settings.backbone == "none":
        for block in teacher.modules():
            if isinstance(block, Bottleneck):
                nn.init.zeros_(block.bn3.weight)
    return pool(teacher, settings.stride)


def _published(
    architecture: str, name: str | None, class_names: Sequence[str]
) -> dict[str, Tensor]:
    try:
        published = get_model_weights(architecture)
    except ValueError:
        raise TeacherError(f"teacher.weights: torchvision has none of {architecture}") from None
    if name is None or name not in published.__members__:
        names = ", ".join(published.__members__)
        raise TeacherError(f"teacher.weights: expected one of {names}; found {name}")
    weights = published[name]
    hint = "train a teacher (source: train) or give a checkpoint of this dataset"
    check_classes(f"teacher.weights {name}", weights.meta["categories"], class_names, hint)
    return fetch(weights)


def _read_state(path: Path) -> dict[str, Tensor]:
    return load_weights(path, "weights of a teacher", REMAKE)


def _load(teacher: Network, state: dict[str, Tensor], source: str, num_classes: int) -> None:
    if not teacher.weights.state_dict().keys() & state.keys():
        # As a training program saves a network that it keeps under this name.
        state = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    state = teacher.fit_to(state)
    expected = teacher.weights.state_dict()
    if misfits := list_misfits(expected, state):
        heads = [name for name, tensor in expected.items() if tensor.shape[:1] == (num_classes,)]
        found = {len(state[name]) for name in heads if name in state and state[name].ndim}
        classes = f" (it has {found.pop()})" if len(found - {num_classes}) == 1 else ""
        raise TeacherError(
            f"{source} is no {teacher.architecture} for {num_classes} classes{classes}:\n{misfits}"
        )
    fitting = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    teacher.weights.load_state_dict(fitting, assign=True)
    # Whatever format the file's tensors have: it decides last bits on some processors.
    teacher.to(memory_format=torch.channels_last)


def save_teacher(teacher: Network, path: Path) -> str:
    """Write the weights and return their SHA-256."""
    state = teacher.weights.state_dict()
    save_torch({"state_dict": state}, path)
    return hash_weights(state)


def load_teacher(
    path: Path,
    num_classes: int,
    architecture: str,
    sha256: str | None = None,
    stride: int | None = None,
    feature_layer: str | None = None,
) -> Network:
    """Read a teacher written by `save_teacher`, in eval mode.

    Args:
        path: the file.
        num_classes: K.
        architecture: as `pipeline.config.architectures.find_architecture` takes it.
        sha256: of its weights, as its card has it; None if there is no card.
        stride: that its outputs are averaged down to; None for the network's own.
        feature_layer: of an imported module that returns logits alone.

    Raises:
        ValueError: the file is damaged.
        TeacherError: the file is missing, its keys or shapes do not fit, or it is not its card's.
    """
    build = partial(build_network, architecture, num_classes, feature_layer=feature_layer)
    try:
        with torch.device("meta"):  # drawing weights only to replace them takes seconds
            teacher = build()
    except (RuntimeError, ValueError):  # a constructor that computes with values
        teacher = build()
    state = _read_state(path)
    _load(teacher, state, str(path), num_classes)
    if any(value.is_meta for value in (*teacher.parameters(), *teacher.buffers())):
        # The constructor computes what files do not hold: buffers that are not persistent.
        teacher = build()
        _load(teacher, state, str(path), num_classes)
    if sha256 is not None and (found := hash_weights(teacher.weights.state_dict())) != sha256:
        raise TeacherError(
            f"{path}: other weights than its card's ({path.with_suffix('.json')}): expected sha256 "
            f"{sha256}, found {found}; put both files of one teacher there, or delete them and run "
            "`dvc repro teacher`"
        )
    return pool(teacher, stride).eval()
