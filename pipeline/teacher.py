"""The teacher: torchvision's DeepLabV3-ResNet101, trained, published or from a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation import DeepLabV3_ResNet101_Weights, deeplabv3_resnet101

from pipeline import params
from pipeline.checkpoint import hash_weights, save_torch
from pipeline.datasets.index import Index, read_image, read_labels
from pipeline.loading import open_loader
from pipeline.losses.cross_entropy import cross_entropy
from pipeline.network import MEAN, STD, STRIDE, Output, normalise, precision_scope, upsample
from pipeline.randomness import seed_sequence, seed_torch
from pipeline.ranks import ALONE, Ranks
from pipeline.views import draw_view

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


def build_teacher(settings: params.Teacher, num_classes: int) -> Teacher:
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


@dataclass(frozen=True)
class Labelled:
    """What a teacher learns from: images uint8 [B, 3, H, W] and their labels [B, H, W]."""

    image: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def first(self, size: int) -> Labelled:
        """The first `size` of them."""
        return Labelled(self.image[:size], self.labels[:size])


class _Crops(Dataset[tuple[Tensor, Tensor]]):
    """Freshly drawn training views per item, numbered from the start of the training."""

    def __init__(self, index: Index, settings: params.Teacher) -> None:
        self._index, self._settings = index, settings

    def __getitem__(self, places: range) -> tuple[Tensor, Tensor]:
        samples, seed = self._index.splits["train"], self._settings.seed
        crop = self._settings.crop_at(places[0] // self._settings.training.batch_size)
        images, labels = [], []
        for place in places:
            epoch, position = divmod(place, len(samples))
            sample = samples[_epoch_order(seed, epoch, len(samples))[position]]
            view = draw_view(crop, seed, sample.key, epoch, sample.height, sample.width)
            images.append(view.image(read_image(self._index, sample)))
            labels.append(view.labels(read_labels(self._index, sample)))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed_sequence(seed, "order", epoch)).permutation(num_samples)


def crops(
    index: Index,
    settings: params.Teacher,
    steps: range,
    device: torch.device,
    num_workers: int,
    ranks: Ranks = ALONE,
) -> Iterator[Labelled]:
    """Stream this rank's micro-batches of the given steps."""
    recipe = settings.training
    size = recipe.micro_batch_size(ranks.size)
    whole = size * ranks.size
    firsts = range(steps.start * recipe.batch_size, steps.stop * recipe.batch_size, whole)
    batches = [ranks.share(range(first, first + whole)) for first in firsts]
    dataset = _Crops(index, settings)
    loader = open_loader(dataset, batches, settings.seed, num_workers, device.type == "cuda")
    for image, labels in loader:
        yield Labelled(*(x.to(device, non_blocking=True) for x in (image, labels)))


class SupervisedTerms(nn.Module):
    """Cross-entropy of a teacher's main and auxiliary head, as means over all ranks."""

    def __init__(self, teacher: Teacher, precision: str, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.teacher, self._precision, self._ranks = teacher, precision, ranks

    def forward(self, batch: Labelled) -> dict[str, Tensor]:
        """Values by name."""
        labels = batch.labels
        with precision_scope(labels.device, self._precision):
            output = self.teacher(normalise(batch.image))
        assert output.auxiliary is not None, "the teacher trains in train mode"
        heads = {"task": output.logits, "auxiliary": output.auxiliary}
        size = (labels.shape[-2], labels.shape[-1])
        return self._ranks.merge(
            {
                name: cross_entropy(upsample(logits.float(), size), labels)
                for name, logits in heads.items()
            }
        )
