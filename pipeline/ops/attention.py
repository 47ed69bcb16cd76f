"""Attention between the pixels of one feature map."""

import torch.nn.functional as F
from torch import Tensor


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Let every pixel of [B, C, h, w] maps average `value` by softmax(query . key * scale).

    Args:
        query: [B, C, h, w].
        key: [B, C, h, w].
        value: [B, C2, h, w].
        mask: bool [B, 1, 1, h*w], which pixels are attended to; default all.
        scale: default 1 / sqrt(C).
    """
    # One head: the fused kernels, which keep no pixel x pixel matrix, want four axes.
    q, k, v = (x.flatten(2).mT.unsqueeze(1) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    maps: Tensor = attended.squeeze(1).mT.reshape(value.shape)
    return maps
