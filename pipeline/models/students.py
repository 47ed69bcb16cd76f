"""The students: segmentation_models_pytorch networks by parts, at output stride 8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from pipeline.config.base import STRIDE
from pipeline.config.params import StudentConfig
from pipeline.models.network import Output
from pipeline.runtime.checkpoint import save_torch


class Student(nn.Module):
    """Encoder, decoder and classifier; an auxiliary head while training.

    The library's whole model is not called: it insists on sizes divisible by 32 and upsamples its
    own way. The input of its last convolution is the pre-classifier feature of every architecture.
    """

    def __init__(
        self, encoder: Any, decoder: nn.Module, classifier: nn.Conv2d, auxiliary: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.classifier = classifier
        third_stage = encoder.out_channels[-2]
        self.auxiliary = FCNHead(third_stage, classifier.out_channels) if auxiliary else None

    @property
    def num_parameters(self) -> int:
        """Count the parameters that `save_student` keeps."""
        kept = (value for name, value in self.named_parameters() if not _auxiliary(name))
        return sum(value.numel() for value in kept)

    @property
    def feature_channels(self) -> int:
        """Channels of the features before the classifier."""
        return self.classifier.in_channels

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of 8) to outputs at stride 8."""
        stages = self.encoder(image)
        features = self.decoder(stages)
        heads = self.training and self.auxiliary is not None
        auxiliary = self.auxiliary(stages[-2]) if heads else None  # type: ignore[misc]
        return Output(self.classifier(features), features, auxiliary)


def _auxiliary(name: str) -> bool:
    return name.startswith("auxiliary.")


def _deeplabv3(encoder: str, num_classes: int) -> Any:
    return smp.DeepLabV3(
        encoder, encoder_weights=None, encoder_output_stride=STRIDE, classes=num_classes
    )


def _pspnet(encoder: str, num_classes: int) -> Any:
    # Three encoder stages are the library's default; the paper's PSPNet uses all of them, dilated.
    model = smp.PSPNet(encoder, encoder_weights=None, encoder_depth=5, classes=num_classes)
    model.encoder.make_dilated(output_stride=STRIDE)
    return model


# architecture -> (builder, encoder); ResNet students carry the paper's auxiliary head.
ARCHITECTURES: dict[str, tuple[Callable[[str, int], Any], str]] = {
    "deeplabv3_resnet18": (_deeplabv3, "resnet18"),
    "deeplabv3_mobilenet_v2": (_deeplabv3, "mobilenet_v2"),
    "pspnet_resnet18": (_pspnet, "resnet18"),
}


def build_student(architecture: str, num_classes: int, encoder_weights: str = "none") -> Student:
    """Build a student with fresh weights (torch's global generator) or a pretrained encoder.

    Args:
        architecture: a key of ARCHITECTURES.
        num_classes: K.
        encoder_weights: `none`, a name the library can download, or a path to a state dict.
    """
    build, encoder = ARCHITECTURES[architecture]
    model = build(encoder, num_classes)
    if encoder_weights != "none":
        _load_encoder(model.encoder, encoder, encoder_weights)
    student = Student(model.encoder, model.decoder, model.segmentation_head[0], "resnet" in encoder)
    return student.to(memory_format=torch.channels_last)


def _load_encoder(encoder: nn.Module, name: str, weights: str) -> None:
    if not Path(weights).is_file():
        if Path(weights).suffix or "/" in weights:
            raise ValueError(
                f"encoder_weights: {weights}: no such file; give a file, a name or none"
            )
        try:
            published = smp.encoders.get_encoder(name, weights=weights)
        except KeyError as error:
            raise ValueError(f"encoder_weights: {weights}: {error.args[0]}") from None
        encoder.load_state_dict(published.state_dict())
        return
    state = torch.load(weights, map_location="cpu", weights_only=True)
    try:
        encoder.load_state_dict(state.get("state_dict", state))
    except RuntimeError as error:
        raise ValueError(f"encoder_weights: {weights} does not fit {name}: {error}") from None


def save_student(
    student: Student, config: StudentConfig, class_names: Sequence[str], path: Path
) -> None:
    """Write the weights without the auxiliary head, which only training needs, and what they need.

    Args:
        student: trained.
        config: its architecture, and the precision it was trained, and is to be measured, in.
        class_names: of the dataset.
        path: the file.
    """
    named = {"architecture": config.architecture, "precision": config.training.precision}
    state = {name: x for name, x in student.state_dict().items() if not _auxiliary(name)}
    save_torch({**named, "class_names": list(class_names), "state_dict": state}, path)


def load_student(path: Path) -> tuple[Student, str]:
    """Read a student written by `save_student`, in eval mode, and its precision."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such student; run `dvc repro` to train it")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    student = build_student(saved["architecture"], len(saved["class_names"]))
    student.auxiliary = None
    student.load_state_dict(saved["state_dict"])
    return student.eval(), saved["precision"]
