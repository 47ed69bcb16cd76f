"""Networks for tests: the outputs of the real ones, in milliseconds."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from pipeline.models.network import Network, Output
from pipeline.models.smp_networks import SmpNetwork
from pipeline.runtime.rng import seed_torch


class TinyTeacher(Network):
    """Two convolutions with the outputs of a DeepLabV3-ResNet101: 256 features at stride 8."""

    architecture = "deeplabv3_resnet101"
    stride = 8
    feature_channels = 256

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        seed_torch(0, "tiny teacher")
        self.stem = nn.Conv2d(3, 16, 9, stride=8, padding=4)
        self.body = nn.Conv2d(16, 256, 1)
        self.classifier = nn.Conv2d(256, num_classes, 1)
        self.to(memory_format=torch.channels_last).eval()

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] to outputs at the stride."""
        features = self.body(self.stem(image).relu()).relu()
        logits = self.classifier(features)
        return Output(logits, features, logits.flip(1))


class TinyEncoder(nn.Module):
    """Three stages, the last at stride 8."""

    out_channels = (3, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 9, stride=8, padding=4)
        self.body = nn.Conv2d(8, 16, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to the output of every stage."""
        stem = self.stem(image).relu()
        return [image, stem, self.body(stem).relu()]


class LastStage(nn.Module):
    """Takes the encoder's last stage for the features."""

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Return the last of the stages."""
        return stages[-1]


def tiny_student(encoder: str, num_classes: int, encoder_weights: str) -> SmpNetwork:
    """Build a student of three convolutions and an auxiliary head."""
    head = [nn.Conv2d(16, num_classes, 1)]
    parts = SimpleNamespace(encoder=TinyEncoder(), decoder=LastStage(), segmentation_head=head)
    return SmpNetwork(parts, 8, auxiliary=True)


def tiny_teacher(encoder: str, num_classes: int, encoder_weights: str) -> TinyTeacher:
    """Build the stand-in as a teacher of params.yaml."""
    return TinyTeacher(num_classes)
