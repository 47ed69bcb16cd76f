"""The teacher: torchvision's DeepLabV3-ResNet101, trained, published or from a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation import DeepLabV3_ResNet101_Weights, deeplabv3_resnet101

from pipeline.config.base import STRIDE
from pipeline.config.params import TeacherConfig
from pipeline.datasets.views import MEAN, STD
from pipeline.models.network import Output
from pipeline.runtime.checkpoint import hash_weights, save_torch
from pipeline.runtime.rng import seed_torch

ARCHITECTURE = "deeplabv3_resnet101"
FEATURE_CHANNELS = 256
PREPROCESSING = {"mean": list(MEAN), "std": list(STD), "stride": STRIDE}


class TeacherError(ValueError):
    """Weights that do not fit the architecture or the dataset."""


class Teacher(nn.Module):
    """DeepLabV3-ResNet101 by parts: logits, the 256 feature channels before them, auxiliary."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        # Both given explicitly: torchvision's defaults would download a backbone and drop the head.
        self.network = deeplabv3_resnet101(
            weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=True
        )
        self.network.classifier[0].project[3].p = dropout
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of 8) to outputs at stride 8."""
        stages = self.network.backbone(image)
        *before, classifier = self.network.classifier
        features = stages["out"]
        for layer in before:
            features = layer(features)
        auxiliary = self.network.aux_classifier(stages["aux"])
        return Output(classifier(features), features, auxiliary)


@dataclass(frozen=True)
class TeacherCard:
    """What is known of a teacher beside its weights: the JSON next to the file."""

    architecture: str
    class_names: list[str]
    source: str
    sha256: str
    val: dict[str, Any]
    num_parameters: int
    seconds: float

    @classmethod
    def read(cls, path: Path) -> TeacherCard:
        """Read the JSON of a teacher."""
        return cls(**json.loads(path.read_text()))


def build_teacher(settings: TeacherConfig, num_classes: int) -> Teacher:
    """Build a teacher with fresh weights from its seed, or with those its source names.

    Fresh residual blocks start as the identity (zero last batch norm), which lets a ResNet101 learn
    from scratch in a few hundred steps.
    """
    seed_torch(settings.seed, "teacher", "weights")
    teacher = Teacher(num_classes, settings.dropout)
    if settings.source == "torchvision":
        _load(teacher, _published(settings.weights, num_classes), f"weights {settings.weights}")
    elif settings.source == "checkpoint":
        path = Path(str(settings.checkpoint))
        _load(teacher, _read_state(path), str(path))
    else:
        for block in teacher.modules():
            if isinstance(block, Bottleneck):
                nn.init.zeros_(block.bn3.weight)
    return teacher


def _published(name: str | None, num_classes: int) -> dict[str, Any]:
    try:
        weights = DeepLabV3_ResNet101_Weights[str(name)]
    except KeyError:
        names = ", ".join(weights.name for weights in DeepLabV3_ResNet101_Weights)
        raise TeacherError(f"teacher.weights: expected one of {names}; found {name}") from None
    published = len(weights.meta["categories"])
    if published != num_classes:
        raise TeacherError(
            f"teacher.weights {name} knows {published} classes, the dataset has {num_classes}; "
            "train a teacher (source: train) or give a checkpoint of this dataset"
        )
    return dict(weights.get_state_dict(progress=True, check_hash=True))


def _read_state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TeacherError(f"teacher: {path}: no such file; run `dvc repro teacher`, or correct it")
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {name.removeprefix("network."): tensor for name, tensor in state.items()}


def _load(teacher: Teacher, state: dict[str, Any], source: str) -> None:
    expected = teacher.network.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [
        f"{name}: expected {tuple(expected[name].shape)}, found {tuple(state[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if expected[name].shape != state[name].shape
    ]
    findings = [*(f"missing {n}" for n in missing), *(f"unknown {n}" for n in extra), *shapes]
    if findings:
        listing = "\n".join(f"  {finding}" for finding in findings[:8])
        more = f"\n  and {len(findings) - 8} more" if len(findings) > 8 else ""
        raise TeacherError(
            f"{source} is no {ARCHITECTURE} with auxiliary head for "
            f"{teacher.network.classifier[-1].out_channels} classes:\n{listing}{more}"
        )
    fitting = {name: state[name].to(tensor.dtype) for name, tensor in expected.items()}
    teacher.network.load_state_dict(fitting, assign=True)
    # Whatever format the file's tensors have: it decides last bits on some processors.
    teacher.to(memory_format=torch.channels_last)


def save_teacher(teacher: Teacher, path: Path) -> str:
    """Write the weights and return their SHA-256."""
    state = teacher.network.state_dict()
    save_torch({"state_dict": state}, path)
    return hash_weights(state)


def load_teacher(path: Path, num_classes: int) -> Teacher:
    """Read a teacher written by `save_teacher`, in eval mode.

    Raises:
        TeacherError: the file is missing, or its keys or class count do not fit.
    """
    with torch.device("meta"):  # drawing weights only to replace them takes seconds
        teacher = Teacher(num_classes, dropout=0.0)
    _load(teacher, _read_state(path), str(path))
    return teacher.eval()
