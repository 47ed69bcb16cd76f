"""Networks of segmentation_models_pytorch by parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.fcn import FCNHead

from pipeline.config.base import STRIDE
from pipeline.models.encoder_weights import load_encoder
from pipeline.models.network import Network, Output, Preprocessing

DILATED: dict[str, dict[str, Any]] = {
    "deeplabv3": {"encoder_output_stride": STRIDE},
    "pspnet": {"encoder_depth": 5, "output_stride": STRIDE},
}
"""Decoders whose encoder is dilated, all of its stages, as in the paper; others take defaults."""

TRIAL_PX = 256
"""Side of the image that a network is asked its stride with: PAN pools it to a 128th."""


class SmpNetwork(Network):
    """Encoder, decoder and classifier of a model, and an auxiliary head if there is to be one.

    The library's whole model is not called: it upsamples its own way. The input of its last
    convolution is the pre-classifier feature of every architecture.

    Args:
        model: of segmentation_models_pytorch; its parts are taken.
        stride: output stride of the model's decoder.
        auxiliary: whether it has an auxiliary head, on its encoder's last stage but one.
        size_multiple: of the sides that the encoder takes, if not of the stride; images are padded
            to it, and the outputs cut.
    """

    def __init__(
        self, model: SegmentationModel, stride: int, auxiliary: bool, size_multiple: int = 1
    ) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.decoder = model.decoder
        self.classifier: nn.Conv2d = model.segmentation_head[0]
        third_stage = self.encoder.out_channels[-2]
        self.auxiliary = FCNHead(third_stage, self.classifier.out_channels) if auxiliary else None
        self.stride = stride
        self.feature_channels = self.classifier.in_channels
        self._size_multiple = size_multiple

    @property
    def dropouts(self) -> Sequence[nn.Dropout | nn.Dropout2d]:
        """Return those of the decoder."""
        return [x for x in self.decoder.modules() if isinstance(x, (nn.Dropout, nn.Dropout2d))]

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        height, width = image.shape[-2:]
        below, right = -height % self._size_multiple, -width % self._size_multiple
        padded = functional.pad(image, (0, right, 0, below)) if below or right else image
        stages = self.encoder(padded)
        features = _cut(self.decoder(stages), height // self.stride, width // self.stride)
        auxiliary = None
        if self.auxiliary is not None:
            auxiliary = _cut(self.auxiliary(stages[-2]), *features.shape[-2:])
        return Output(self.classifier(features), features, auxiliary)


def _cut(maps: Tensor, height: int, width: int) -> Tensor:
    return maps if maps.shape[-2:] == (height, width) else maps[..., :height, :width]


def build(pair: str, num_classes: int, encoder_weights: str) -> SmpNetwork:
    """Build a network of the library from `decoder/encoder`.

    Raises:
        ValueError: there is no such encoder, or the decoder does not take it.
    """
    decoder, encoder = pair.split("/")
    options = {"encoder_weights": None, "classes": num_classes, **DILATED.get(decoder, {})}
    try:
        model = smp.create_model(decoder, encoder, **options)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"smp:{pair}: {error!s:.500}") from error
    num_halvings = len(model.encoder.out_channels) - 1
    if encoder.startswith("mit_") and model.encoder.output_stride < 2**num_halvings:
        raise ValueError(f"smp:{pair}: dilation changes a MiT's attention; take smp:segformer")
    return assemble(model, encoder, encoder_weights)


def assemble(model: SegmentationModel, encoder: str, encoder_weights: str) -> SmpNetwork:
    """Make a network of a model of the library, with a pretrained encoder if it is to have one.

    Args:
        model: with one map before its classifier.
        encoder: name of its encoder; ResNets get an auxiliary head, as in the paper, where the last
            stage but one lies at the output stride.
        encoder_weights: `none`, `package`, a name the library can download, or a file.
    """
    load_encoder(model.encoder, encoder, encoder_weights)
    third_px, features_px = _sides(model)
    network = SmpNetwork(
        model,
        TRIAL_PX // features_px,
        auxiliary="resnet" in encoder and third_px == features_px,
        # A second MobileViT cuts its maps into patches of two cells.
        size_multiple=model.encoder.output_stride * (2 if "mobilevitv2" in encoder else 1),
    )
    network.preprocessing = _preprocessing(encoder)
    return network


@torch.no_grad()
def _sides(model: SegmentationModel) -> tuple[int, int]:
    """Ask a model how large its encoder's last stage but one, and its features, are."""
    model.eval()
    stages = model.encoder(torch.zeros(1, 3, TRIAL_PX, TRIAL_PX))
    features = model.decoder(stages)
    model.train()
    return stages[-2].shape[-1], features.shape[-1]


def _preprocessing(encoder: str) -> Preprocessing:
    """Return how images are made for the published weights of an encoder."""
    if encoder.startswith(("inceptionv4", "inceptionresnetv2", "xception")):
        return Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    if not encoder.startswith(("tu-", "timm-")):
        return Preprocessing()
    published = timm.get_pretrained_cfg(encoder.partition("-")[2])
    if published is None:
        return Preprocessing()
    mean, std = (tuple(values) for values in (published.mean, published.std))
    assert len(mean) == len(std) == 3
    return Preprocessing(mean, std)
