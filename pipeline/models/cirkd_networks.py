"""The networks of the paper's public repository, in its names: its checkpoints load as they are.

They differ from torchvision's and segmentation_models_pytorch's in stem, dilation, preprocessing
and upsampling. No code of that repository is used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation.fcn import FCNHead

from pipeline.config.base import STRIDE
from pipeline.models.network import Network, Output, Preprocessing
from pipeline.models.published import load_backbone

PREPROCESSING = Preprocessing(
    mean=(122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    bgr=True,
    align_corners=True,
)
COCO_STUFF_IDS = 182
ABSENT_IDS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Ids of COCO-Stuff that no label has; the repository's networks have rows for them."""

_interpolate = partial(functional.interpolate, mode="bilinear", align_corners=True)


class CirkdNetwork(Network):
    """Backbone, head and auxiliary head under the repository's names.

    Args:
        pretrained: the backbone; gives its last stage but one, and its last.
        head: gives logits and features.
        auxlayer: the auxiliary head, of the last stage but one; None if there is none.
    """

    stride = STRIDE
    preprocessing = PREPROCESSING
    auxiliary_name = "auxlayer"

    def __init__(self, pretrained: nn.Module, head: Head, auxlayer: nn.Module | None) -> None:
        super().__init__()
        self.pretrained, self.auxlayer = pretrained, auxlayer
        self._take_head(head)

    def _take_head(self, head: Head) -> None:
        self.head, self.feature_channels = head, head.width

    @property
    def dropouts(self) -> Sequence[nn.Dropout]:
        """Return those before the classifier."""
        return [x for x in self.head.modules() if isinstance(x, nn.Dropout)]

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        third, fourth = self.pretrained(image)
        logits, features = self.head(fourth)
        return Output(logits, features, None if self.auxlayer is None else self.auxlayer(third))

    def fit_to(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the width of a file's head: it tells the repository's two generations apart.

        Rows of COCO-Stuff's ids that no label has are cut where the 171 others are the classes.
        """
        state = super().fit_to(state)
        kernel = state.get("head.block.0.weight")
        if kernel is not None and kernel.ndim == 4 and len(kernel) != self.head.width:
            with torch.device("meta"):
                self._take_head(self.head.widened(len(kernel)))
        rows = [row for row in range(COCO_STUFF_IDS) if row not in ABSENT_IDS]
        if self.head.num_classes != len(rows):
            return state
        own = self.state_dict()
        return {
            name: tensor[rows]
            if tensor.shape[:1] == (COCO_STUFF_IDS,) and name in own and len(own[name]) == len(rows)
            else tensor
            for name, tensor in state.items()
        }


class Head(nn.Module):
    """What stands on a backbone.

    Attributes:
        in_channels: of the backbone's last stage.
        width: D, the channels of the features.
        num_classes: K.
    """

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.in_channels, self.width, self.num_classes = in_channels, width, num_classes

    def widened(self, width: int) -> Head:
        """Build the same head with another width."""
        return type(self)(self.in_channels, width, self.num_classes)


class DeepLabHead(Head):
    """Atrous spatial pyramid pooling, a 3x3 convolution and the classifier."""

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__(in_channels, width, num_classes)
        self.aspp = Aspp(in_channels, width)
        layers = [*_convolution(width, width, 3), nn.Dropout(0.1)]
        self.block = nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))

    def forward(self, stage: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, and features: the input of the classifier."""
        features = self.block[:-1](self.aspp(stage))
        return self.block[-1](features), features


class Aspp(nn.Module):
    """Four convolutions of different reach and the mean of the image, projected to one map."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.b0 = _convolution(in_channels, width, 1)
        self.b1, self.b2, self.b3 = (
            _named(block=_convolution(in_channels, width, 3, dilation)) for dilation in (12, 24, 36)
        )
        pool = nn.AdaptiveAvgPool2d(1)
        self.b4 = _named(gap=nn.Sequential(pool, *_convolution(in_channels, width, 1)))
        self.project = nn.Sequential(*_convolution(5 * width, width, 1), nn.Dropout(0.5))

    def forward(self, stage: Tensor) -> Tensor:
        """Map a backbone's last stage to a map of `width` channels."""
        branches = [branch(stage) for branch in (self.b0, self.b1, self.b2, self.b3)]
        mean = _interpolate(self.b4(stage), stage.shape[-2:])
        joined: Tensor = self.project(torch.cat([*branches, mean], dim=1))
        return joined


class PspHead(Head):
    """Pyramid pooling, a 3x3 convolution and the classifier."""

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__(in_channels, width, num_classes)
        self.psp = Pyramid(in_channels)
        self.block = nn.Sequential(*_convolution(2 * in_channels, width, 3), nn.Dropout(0.1))
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, stage: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, and features: the input of the classifier."""
        features = self.block(self.psp(stage))
        return self.classifier(features), features


class Pyramid(nn.Module):
    """A map and its means over 1x1, 2x2, 3x3 and 6x6 fields, side by side."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        for place in range(1, 5):
            self.add_module(f"conv{place}", _convolution(in_channels, in_channels // 4, 1))

    def forward(self, stage: Tensor) -> Tensor:
        """Map C channels to 2 C."""
        levels = [
            _interpolate(convolution(functional.adaptive_avg_pool2d(stage, bins)), stage.shape[-2:])
            for bins, convolution in zip((1, 2, 3, 6), self.children(), strict=True)
        ]
        return torch.cat([stage, *levels], dim=1)


def _convolution(in_channels: int, channels: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    kernels = nn.Conv2d(in_channels, channels, size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(kernels, nn.BatchNorm2d(channels), nn.ReLU())


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


class DeepStemResNet(ResNet):  # type: ignore[misc]  # torchvision has no types
    """A ResNet with three 3x3 convolutions for its stem, at output stride 8."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int]) -> None:
        super().__init__(block, layers)
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128)
        self.inplanes = 128
        self.layer1 = self._make_layer(block, 64, layers[0])
        _dilate(self.layer3, 1, 2)
        _dilate(self.layer4, 2, 4)
        del self.fc

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last stage but one, and the last."""
        stem = self.relu(self.bn1(self.conv1(image)))
        stem = self.relu(self.bn2(self.conv2(stem)))
        stem = self.relu(self.bn3(self.conv3(stem)))
        third = self.layer3(self.layer2(self.layer1(self.maxpool(stem))))
        return third, self.layer4(third)


class MobileNetV2(nn.Module):
    """torchvision's in the names of its older layout, at output stride 8."""

    def __init__(self) -> None:
        super().__init__()
        features: Any = mobilenet_v2(weights=None).features[:-1]
        for block in features[1:]:
            layers = [x for x in block.conv.modules() if not list(x.children())]
            block.conv = nn.Sequential(*layers)
        _dilate(features[7:14], 1, 2)
        _dilate(features[14:], 2, 4)
        self.net = _named(features=features)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last stage twice: no auxiliary head stands on the one before."""
        stage = self.net(image)
        return stage, stage


def _dilate(stage: nn.Sequential, before: int, dilation: int) -> None:
    """Let a stage keep its size: its first 3x3 convolution has the dilation of the stage before."""
    convolutions = [x for x in stage.modules() if isinstance(x, nn.Conv2d)]
    for convolution in convolutions:
        convolution.stride = (1, 1)
    spatial = [x for x in convolutions if x.kernel_size == (3, 3)]
    for convolution, own in zip(spatial, [before, *[dilation] * len(spatial)], strict=False):
        convolution.dilation = convolution.padding = (own, own)


_RESNETS: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}
_CHANNELS = {"resnet18": (512, 128), "resnet101": (2048, 256), "mobilenet_v2": (320, 128)}
"""Of a backbone's last stage, and of the head on it in the repository's first generation."""


def deeplabv3(encoder: str, num_classes: int, encoder_weights: str) -> CirkdNetwork:
    """Build DeepLabV3."""
    return _build(DeepLabHead, encoder, num_classes, encoder_weights)


def pspnet(encoder: str, num_classes: int, encoder_weights: str) -> CirkdNetwork:
    """Build PSPNet."""
    return _build(PspHead, encoder, num_classes, encoder_weights)


def _build(kind: type[Head], encoder: str, num_classes: int, encoder_weights: str) -> CirkdNetwork:
    channels, width = _CHANNELS[encoder]
    pretrained: Any
    if encoder in _RESNETS:
        pretrained = backbone = DeepStemResNet(*_RESNETS[encoder])
        auxlayer = _named(block=FCNHead(channels // 2, num_classes))
    else:
        pretrained, auxlayer = MobileNetV2(), None
        backbone = pretrained.net.features
    if encoder_weights != "none":
        if not Path(encoder_weights).is_file():
            raise ValueError(
                f"backbone {encoder_weights}: no such file; expected none, or a file of a "
                f"{encoder} with the repository's stem (nobody publishes one by name)"
            )
        load_backbone(backbone, encoder, encoder_weights)
    return CirkdNetwork(pretrained, kind(channels, width, num_classes), auxlayer)
