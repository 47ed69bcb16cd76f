"""How full-size images are predicted: at several scales, mirrored, whole or window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Predictor(Protocol):
    """What scores full-size images: a network in eval mode, or an exported graph."""

    def predict_logits(self, image: Tensor, precision: str) -> Tensor:
        """Map uint8 RGB [B, 3, H, W] to float32 logits [B, K, H, W]."""

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits bilinearly to height and width."""


@dataclass(frozen=True)
class Inference:
    """How images of any size are predicted.

    Attributes:
        precision: float32, bfloat16 or float16.
        scales: an image, or a window of it, is resized to each; class probabilities are averaged.
        flip: whether its mirror image is averaged in, too.
        window: side in pixels of square windows that are slid over the image, so that memory is
            bounded by a row of them; None takes the whole image at once.
        overlap: share of a window that the next one covers again, 0 <= overlap < 1.
        batch_size: images of one size that go through the network together.
    """

    precision: str = "float32"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None
    overlap: float = 1 / 3
    batch_size: int = 1

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale < inf for scale in self.scales):
            raise ValueError(f"scales: expected finite numbers above 0; found {self.scales}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window: expected 1 pixel or more; found {self.window}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap: expected 0 or more and less than 1; found {self.overlap}")


@torch.inference_mode()
def predict_classes(network: Predictor, image: Tensor, inference: Inference) -> Tensor:
    """Predict the class of every pixel.

    Args:
        network: what scores images.
        image: uint8 RGB [B, 3, H, W], any size.
        inference: how.

    Returns:
        uint8 [B, H, W].
    """
    if inference.window is None:
        return _scores(network, image, inference).argmax(1).to(torch.uint8)
    batch, _, height, width = image.shape
    tall, wide = min(inference.window, height), min(inference.window, width)
    tops, lefts = (_starts(*sizes, inference.overlap) for sizes in ((height, tall), (width, wide)))
    classes = torch.empty((batch, height, width), dtype=torch.uint8, device=image.device)
    rows: Tensor | None = None
    for top, following in pairwise([*tops, height]):
        for left in lefts:
            scores = _scores(
                network, image[..., top : top + tall, left : left + wide], inference, shared=True
            )
            if rows is None:
                rows = scores.new_zeros(batch, scores.shape[1], tall, width)
            # A sum: at one pixel every class has been scored equally often.
            rows[..., left : left + wide] += scores
        assert rows is not None, "an image has a row of windows"
        done = following - top
        classes[:, top:following] = rows[:, :, :done].argmax(1)
        rows = functional.pad(rows[:, :, done:], (0, 0, 0, done))
    return classes


def _starts(length: int, size: int, overlap: float) -> Sequence[int]:
    """Place windows of `size` along `length`, the last one flush with the end."""
    step = max(1, round(size * (1 - overlap)))
    return sorted({*range(0, length - size, step), length - size})


def _scores(
    network: Predictor, image: Tensor, inference: Inference, shared: bool = False
) -> Tensor:
    """Score every class of every pixel, float32 [B, K, H, W].

    Logits, where nothing else is added to them; else the sum of class probabilities.
    """
    precision = inference.precision
    if not shared and inference.scales == (1.0,) and not inference.flip:
        return network.predict_logits(image, precision)
    size = (image.shape[-2], image.shape[-1])
    total: Tensor | None = None
    for scale in inference.scales:
        scaled = _resize(image, scale)
        views = (scaled, scaled.flip(-1)) if inference.flip else (scaled,)
        for mirrored, view in enumerate(views):
            logits = network.predict_logits(view, precision)
            logits = logits.flip(-1) if mirrored else logits
            probabilities = network.upsample(logits, size).softmax(1)
            total = probabilities if total is None else total + probabilities
    assert total is not None, "Inference refuses to have no scale"
    return total


def _resize(image: Tensor, scale: float) -> Tensor:
    """Resize uint8 images bilinearly, as their training views were (with Pillow's antialiasing)."""
    if scale == 1.0:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    resized = functional.interpolate(
        image.float(), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.round().clamp(0, 255).to(torch.uint8)
