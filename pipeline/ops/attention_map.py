"""Attention maps: where the features of an image are strong."""

from __future__ import annotations

from torch import Tensor

from pipeline.ops.embedding import embed, work_dtype


def power(x: Tensor) -> Tensor:
    """Average the squares over channels: [B, C, h, w] to [B, h, w]."""
    return x.to(work_dtype(x)).square().mean(1)


def attention(power: Tensor, valid: Tensor) -> Tensor:
    """L2-normalise each image's map over the valid pixels: [B, h, w] to [B, h*w], 0 in padding."""
    return embed(power.where(valid, 0).flatten(1))
