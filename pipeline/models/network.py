"""What teacher and students share: input, output, precision, upsampling, prediction."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.base import STRIDE
from pipeline.datasets.views import MEAN, STD
from pipeline.runtime.precision import precision_scope


class Output(NamedTuple):
    """The outputs of a segmentation network at output stride STRIDE, before any upsampling.

    Attributes:
        logits: [B, K, h, w], before softmax.
        features: [B, D, h, w], the layer before the classifier.
        auxiliary: [B, K, h, w] logits of the auxiliary head: the teacher's, and a training
            student's if it has one.
    """

    logits: Tensor
    features: Tensor
    auxiliary: Tensor | None


def normalise(image: Tensor) -> Tensor:
    """Map RGB uint8 [B, 3, H, W] to float32, zero mean and unit deviation over ImageNet."""
    mean, std = _mean_and_std(image.device)
    return ((image.float() - mean) / std).contiguous(memory_format=torch.channels_last)


@cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Copied to each device once: a copy makes the host wait."""
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return mean.to(device), std.to(device)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to `size` (align_corners=False), the one rule for teacher and students."""
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def compile_network(network: nn.Module, backend: str | None) -> None:
    """Compile the forward pass in place; names of weights stay.

    Args:
        network: whose `forward` is compiled at its first call.
        backend: of torch.compile, e.g. `inductor`; None leaves the network as it is.

    Raises:
        ValueError: torch knows no such backend.
    """
    if backend is None:
        return
    known = torch.compiler.list_backends(exclude_tags=None)
    if backend not in known:
        raise ValueError(f"training.compile: expected one of {', '.join(known)}; found {backend}")
    network.compile(backend=backend)


@torch.inference_mode()
def predict(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    """Class of every pixel of full-size images.

    Args:
        network: in eval mode; maps normalised images to an `Output`.
        image: uint8 RGB [B, 3, H, W], any size; padded to a multiple of 8 and cropped back.
        precision: float32, bfloat16 or float16.

    Returns:
        uint8 [B, H, W].
    """
    height, width = image.shape[-2:]
    normalised = normalise(image)
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    padded = functional.pad(normalised, padding)
    with precision_scope(image.device, precision):
        logits = network(padded).logits
    full = upsample(logits.float(), (padded.shape[-2], padded.shape[-1]))
    return full[..., :height, :width].argmax(dim=1).to(torch.uint8)
