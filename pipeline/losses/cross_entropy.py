"""The task: per-pixel cross-entropy against the labels."""

import torch.nn.functional as F
from torch import Tensor

from pipeline.ops.embedding import work_dtype
from pipeline.ops.mean import Mean
from store.schema import VOID


def cross_entropy(logits: Tensor, labels: Tensor) -> Mean:
    """Sum -log softmax(logits)[label] over labelled pixels; void pixels are inert.

    Args:
        logits: [B, K, H, W], any floating dtype, at the labels' size.
        labels: uint8 [B, H, W] in 0..K-1, 255 = void.
    """
    logits = logits.to(work_dtype(logits))
    total = F.cross_entropy(logits, labels.long(), ignore_index=VOID, reduction="sum")
    return Mean(total, (labels != VOID).sum())
