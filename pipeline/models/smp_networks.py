"""Networks of segmentation_models_pytorch by parts, at output stride 8."""

from __future__ import annotations

from pathlib import Path

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from pipeline.config.base import STRIDE
from pipeline.models.network import Network, Output
from pipeline.runtime.checkpoint import load_weights
from store.files import reading


class SmpNetwork(Network):
    """Encoder, decoder and classifier of a model, and an auxiliary head if there is to be one.

    The library's whole model is not called: it insists on sizes divisible by 32 and upsamples its
    own way. The input of its last convolution is the pre-classifier feature of every architecture.

    Args:
        model: of segmentation_models_pytorch; its parts are taken.
        stride: output stride of the model's decoder.
        auxiliary: whether it has an auxiliary head, on its encoder's last stage but one.
    """

    def __init__(self, model: SegmentationModel, stride: int, auxiliary: bool) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.decoder = model.decoder
        self.classifier: nn.Conv2d = model.segmentation_head[0]
        third_stage = self.encoder.out_channels[-2]
        self.auxiliary = FCNHead(third_stage, self.classifier.out_channels) if auxiliary else None
        self.stride = stride
        self.feature_channels = self.classifier.in_channels

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        stages = self.encoder(image)
        features = self.decoder(stages)
        auxiliary = None
        if self.auxiliary is not None:
            auxiliary = self.auxiliary(stages[-2])
        return Output(self.classifier(features), features, auxiliary)


def deeplabv3(encoder: str, num_classes: int, encoder_weights: str) -> SmpNetwork:
    """Build the library's DeepLabV3."""
    model = smp.DeepLabV3(
        encoder, encoder_weights=None, encoder_output_stride=STRIDE, classes=num_classes
    )
    return assemble(model, encoder, encoder_weights)


def pspnet(encoder: str, num_classes: int, encoder_weights: str) -> SmpNetwork:
    """Build the library's PSPNet on all stages of its encoder, dilated, as the paper does."""
    model = smp.PSPNet(encoder, encoder_weights=None, encoder_depth=5, classes=num_classes)
    model.encoder.make_dilated(output_stride=STRIDE)
    return assemble(model, encoder, encoder_weights)


def assemble(model: SegmentationModel, encoder: str, encoder_weights: str) -> SmpNetwork:
    """Make a network of a model of the library, with a pretrained encoder if it is to have one.

    Args:
        model: built with an output stride of STRIDE.
        encoder: name of its encoder; ResNets get an auxiliary head, as in the paper.
        encoder_weights: `none`, a name the library can download, or a path to a state dict.
    """
    if encoder_weights != "none":
        _load_encoder(model.encoder, encoder, encoder_weights)
    return SmpNetwork(model, STRIDE, auxiliary="resnet" in encoder)


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
    what, hint = f"encoder_weights that fit {name}", "correct encoder_weights"
    state = load_weights(Path(weights), what, hint)
    with reading(Path(weights), what, hint):
        encoder.load_state_dict(state)
