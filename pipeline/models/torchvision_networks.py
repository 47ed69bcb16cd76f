"""Networks of torchvision by parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model

from pipeline.models.network import Network, Output


class TorchvisionNetwork(Network):
    """torchvision's DeepLabV3 by parts: logits, the features before them, auxiliary."""

    stride = 8  # torchvision dilates the last two stages of a ResNet, and gives no choice in it
    auxiliary_name = "network.aux_classifier"

    def __init__(self, network: Any) -> None:  # torchvision says nothing of a network's parts
        super().__init__()
        self.network: Any = network
        self.feature_channels = network.classifier[-1].in_channels

    @property
    def weights(self) -> nn.Module:
        """Return torchvision's own module: files hold its names."""
        network: nn.Module = self.network
        return network

    @property
    def dropouts(self) -> Sequence[nn.Dropout]:
        """Return that of the ASPP's projection."""
        return (self.network.classifier[0].project[3],)

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        stages = self.network.backbone(image)
        *before, classifier = self.network.classifier
        features = stages["out"]
        for layer in before:
            features = layer(features)
        head = self.network.aux_classifier
        auxiliary = None if head is None else head(stages["aux"])
        return Output(classifier(features), features, auxiliary)


def deeplabv3(backbone: str, num_classes: int, encoder_weights: str) -> TorchvisionNetwork:
    """Build torchvision's DeepLabV3 with an auxiliary head."""
    # Both given explicitly: torchvision's defaults would download a backbone and drop the head.
    network = get_model(
        f"deeplabv3_{backbone}",
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        aux_loss=True,
    )
    return TorchvisionNetwork(network)
