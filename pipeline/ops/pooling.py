"""Pooling that does not look at padding."""

import torch.nn.functional as F
from torch import Tensor

from pipeline.ops.embedding import work_dtype

CHANNEL_POOL = 4
"""Edge of the cells that maps are pooled to before their channels are compared (CIRKDV2)."""


def mean_pool(x: Tensor, valid: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Average the pixels inside the image of each size x size cell; the last cells may be cut.

    Args:
        x: [B, C, h, w], any floating dtype.
        valid: bool [B, h, w], False = padding.
        size: edge of a cell in pixels.

    Returns:
        [B, C, ceil(h/size), ceil(w/size)] (0 in cells of padding alone), and bool [B, ...] which
        cells hold a pixel of the image.
    """
    mask = valid.unsqueeze(1)
    total = _sum_pool(x.to(work_dtype(x)).where(mask, 0), size)
    num_pixels = _sum_pool(mask.to(total.dtype), size)
    return total / num_pixels.clamp_min(1), num_pixels.squeeze(1) > 0


def max_pool(x: Tensor, valid: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Take the greatest value inside the image of each size x size cell; see `mean_pool`."""
    mask = valid.unsqueeze(1)
    cells = F.max_pool2d(mask.float(), size, ceil_mode=True) > 0
    pooled = F.max_pool2d(x.to(work_dtype(x)).where(mask, float("-inf")), size, ceil_mode=True)
    return pooled.where(cells, 0), cells.squeeze(1)


def _sum_pool(x: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(x, size, ceil_mode=True, divisor_override=1)
