"""What teacher and students share: input, output, precision, upsampling, prediction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pkgutil import resolve_name
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.architectures import Architecture
from pipeline.datasets.views import MEAN, STD
from pipeline.runtime.precision import precision_scope


class Output(NamedTuple):
    """The outputs of a segmentation network at its output stride, before any upsampling.

    Attributes:
        logits: [B, K, h, w], before softmax.
        features: [B, D, h, w], the layer before the classifier.
        auxiliary: [B, K, h, w] logits of the auxiliary head: the teacher's, and a training
            student's if it has one.
    """

    logits: Tensor
    features: Tensor
    auxiliary: Tensor | None


class Network(nn.Module):
    """A segmentation network; `forward` maps normalised images [B, 3, H, W] to an `Output`.

    Attributes:
        architecture: its name in the registry that it was built from.
        stride: pixels of an image along one cell of the output; H and W are multiples of it.
        feature_channels: D, the channels of the features.
    """

    architecture: str
    stride: int
    feature_channels: int

    @property
    def weights(self) -> nn.Module:
        """Return the module whose names a teacher's file holds."""
        return self

    @property
    def preprocessing(self) -> dict[str, object]:
        """Return what images and sizes are made to fit, as JSON values."""
        return {"mean": list(MEAN), "std": list(STD), "stride": self.stride}


def build_network(registry: Mapping[str, Architecture], name: str, *arguments: object) -> Network:
    """Build an architecture by its name, in the memory format that its outputs depend on.

    Args:
        registry: STUDENTS or TEACHERS of `pipeline.config.architectures`.
        name: a key of it.
        arguments: what its builder is called with after the encoder's name.
    """
    entry = registry[name]
    network: Network = resolve_name(entry.builder)(entry.encoder, *arguments)
    network.architecture = name
    return network.to(memory_format=torch.channels_last)


def normalise(image: Tensor) -> Tensor:
    """Map RGB uint8 [B, 3, H, W] to float32, zero mean and unit deviation over ImageNet."""
    mean, std = _mean_and_std(image.device)
    return ((image.float() - mean) / std).contiguous(memory_format=torch.channels_last)


@cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Copy mean and deviation to each device once: a copy makes the host wait."""
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return mean.to(device), std.to(device)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly (align_corners=False), the one rule for teacher and students."""
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
def predict(network: Network, image: Tensor, precision: str) -> Tensor:
    """Predict the class of every pixel of full-size images.

    Args:
        network: in eval mode.
        image: uint8 RGB [B, 3, H, W], any size; padded to multiples of the stride and cropped back.
        precision: float32, bfloat16 or float16.

    Returns:
        uint8 [B, H, W].
    """
    height, width = image.shape[-2:]
    normalised = normalise(image)
    padding = (0, -width % network.stride, 0, -height % network.stride)
    padded = functional.pad(normalised, padding)
    with precision_scope(image.device, precision):
        logits = network(padded).logits
    full = upsample(logits.float(), (padded.shape[-2], padded.shape[-1]))
    return full[..., :height, :width].argmax(dim=1).to(torch.uint8)
