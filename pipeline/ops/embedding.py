"""Embeddings: features of length one."""

import torch
from torch import Tensor

_SMALLEST_PEAK = 1e-30


def embed(features: Tensor, dim: int = 1) -> Tensor:
    """L2-normalise features over `dim`, whatever their scale; a zero vector stays zero.

    Args:
        features: floating tensor of any shape.
        dim: the channel axis.

    Returns:
        Embeddings of the same shape, float32 (float64 for float64 features).
    """
    features = features.to(work_dtype(features))
    # The direction does not depend on the scale, so the peak is a constant for autograd; dividing
    # by it first keeps the squares of huge and tiny values inside the range of the dtype.
    peak = features.detach().abs().amax(dim, keepdim=True)
    features = features / torch.where(peak > _SMALLEST_PEAK, peak, 1)
    return features / torch.linalg.vector_norm(features, dim=dim, keepdim=True).clamp_min(1)


def pixel_embeddings(features: Tensor) -> Tensor:
    """Turn a feature map [B, D, h, w] into unit pixel embeddings [B, h*w, D]."""
    return embed(features).flatten(2).mT.contiguous()


def channel_embeddings(pooled: Tensor, cells: Tensor) -> Tensor:
    """L2-normalise each channel's map over the valid cells: [B, D, h, w] to [B, D, h*w]."""
    return embed(pooled.where(cells.unsqueeze(1), 0).flatten(2), dim=2)


def work_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
