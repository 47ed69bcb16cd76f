"""Embeddings by class: region centers, and random pixels of each class's own area."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from store.schema import VOID


class Draw(NamedTuple):
    """Random pixel embeddings, V slots per class and image, class by class.

    Attributes:
        embeddings: [B, K * V, D], zero in empty slots.
        classes: [B, K * V] int64; 255 = empty slot.
    """

    embeddings: Tensor
    classes: Tensor


def region_centers(embeddings: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Average the embeddings of each class's pixels and normalise again (CIRKD: region embedding).

    Args:
        embeddings: [B, D, h, w], L2-normalised.
        labels: uint8 [B, h, w], 255 = void or padding.
        num_classes: K.

    Returns:
        Centers [B, K, D], zero where a class is absent, and pixel counts int32 [B, K].
    """
    members = _one_hot(labels, num_classes, embeddings.dtype)
    sums = torch.bmm(members, embeddings.flatten(2).transpose(1, 2))
    return functional.normalize(sums, dim=2), members.sum(dim=2).to(torch.int32)


def draw_pixels(
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    per_class: int,
    keys: Tensor,
) -> Draw:
    """Draw up to V pixels of every class in every image, without replacement.

    Args:
        embeddings: [B, D, h, w].
        labels: uint8 [B, h, w], 255 = void or padding.
        num_classes: K.
        per_class: V.
        keys: [B, h*w] random numbers in [0, 1), on any device; a class's greatest are drawn.
    """
    members = _one_hot(labels, num_classes, torch.bool)
    # Each pixel belongs to one class, so one random key a pixel orders every class at once.
    keys = keys.to(labels.device).unsqueeze(1).expand(members.shape).masked_fill(~members, -1.0)
    top = keys.topk(min(per_class, keys.shape[2]), dim=2)
    found = top.values.flatten(1) >= 0
    pixels = top.indices.flatten(1)
    flat = embeddings.flatten(2).transpose(1, 2)
    chosen = flat.gather(1, pixels.unsqueeze(2).expand(-1, -1, flat.shape[2]))
    classes = torch.arange(num_classes, device=labels.device).repeat_interleave(top.values.shape[2])
    return Draw(chosen * found.unsqueeze(2), torch.where(found, classes, VOID))


def _one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return the membership [B, K, A] of every pixel in every class."""
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1)
    return (labels.flatten(1).long().unsqueeze(1) == classes).to(dtype)
