"""Networks of torchvision by parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

from pipeline.models.network import Network, Output
from pipeline.models.published import load_backbone


class TorchvisionNetwork(Network):
    """A network of torchvision, whose files hold torchvision's names.

    Args:
        network: of torchvision, which says nothing of a network's parts.
        stride: of its backbone's last stage; torchvision gives no choice in it.
        feature_channels: D.
    """

    auxiliary_name = "network.aux_classifier"

    def __init__(self, network: Any, stride: int, feature_channels: int) -> None:
        super().__init__()
        self.network: Any = network
        self.stride, self.feature_channels = stride, feature_channels

    @property
    def weights(self) -> nn.Module:
        """Return torchvision's own module."""
        network: nn.Module = self.network
        return network

    @property
    def dropouts(self) -> Sequence[nn.Dropout]:
        """Return those before the classifier."""
        return [x for x in self.network.classifier.modules() if isinstance(x, nn.Dropout)]


class SequentialHead(TorchvisionNetwork):
    """DeepLabV3 or FCN: the features are the input of the last convolution."""

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        stages = self.network.backbone(image)
        *before, classifier = self.network.classifier
        features = stages["out"]
        for layer in before:
            features = layer(features)
        head = self.network.aux_classifier
        auxiliary = None if head is None else head(stages["aux"])
        grid = features.shape[-2:]
        if auxiliary is not None and auxiliary.shape[-2:] != grid:
            # MobileNetV3's stands on a stage of stride 8, its classifier on one of stride 16.
            auxiliary = functional.adaptive_avg_pool2d(auxiliary, grid)
        return Output(classifier(features), features, auxiliary)


class Lraspp(TorchvisionNetwork):
    """LR-ASPP: what its two classifiers see, side by side, are the features.

    Its logits are a sum of two 1x1 convolutions, and so one of both inputs together.
    """

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        stages, head = self.network.backbone(image), self.network.classifier
        low, high = stages["low"], stages["high"]
        gated = head.cbr(high) * head.scale(high)
        context = functional.interpolate(gated, low.shape[-2:], mode="bilinear")
        logits = head.low_classifier(low) + head.high_classifier(context)
        return Output(logits, torch.cat([low, context], dim=1), None)


def deeplabv3(backbone: str, num_classes: int, encoder_weights: str) -> TorchvisionNetwork:
    """Build torchvision's DeepLabV3 with an auxiliary head."""
    network = _build("deeplabv3", backbone, num_classes, encoder_weights, aux_loss=True)
    stride = 8 if "resnet" in backbone else 16
    return SequentialHead(network, stride, network.classifier[-1].in_channels)


def fcn(backbone: str, num_classes: int, encoder_weights: str) -> TorchvisionNetwork:
    """Build torchvision's FCN with an auxiliary head."""
    network = _build("fcn", backbone, num_classes, encoder_weights, aux_loss=True)
    return SequentialHead(network, 8, network.classifier[-1].in_channels)


def lraspp(backbone: str, num_classes: int, encoder_weights: str) -> TorchvisionNetwork:
    """Build torchvision's LR-ASPP."""
    network = _build("lraspp", backbone, num_classes, encoder_weights)
    head = network.classifier
    channels = head.low_classifier.in_channels + head.high_classifier.in_channels
    return Lraspp(network, 8, channels)


def _build(
    kind: str, backbone: str, num_classes: int, encoder_weights: str, **options: bool
) -> Any:  # torchvision says nothing of a network's parts
    # Both given explicitly: torchvision's defaults would download a backbone and drop the head.
    network: Any = get_model(
        f"{kind}_{backbone}",
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        **options,
    )
    if encoder_weights != "none":
        load_backbone(network.backbone, backbone, encoder_weights)
    return network
