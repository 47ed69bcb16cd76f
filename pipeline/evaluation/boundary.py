"""The boundary F-score: how well the outlines of classes are met, whatever lies inside them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from store.metrics import json_number, mean_of_known
from store.schema import VOID

TOLERANCE = 0.0075
"""Of an image's diagonal, as in Csurka et al., "What is a good evaluation measure for semantic
segmentation?" (BMVC 2013)."""


def boundary_counts(labels: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Count the boundary pixels of one image, and those of them that the other side meets.

    A pixel is on the boundary of its class where a neighbour (of four) has another class; void and
    the edge of the image make none. It is met where the other side has a boundary pixel of the
    class within TOLERANCE of the diagonal, in rows and in columns. Counts of images add up.

    Args:
        labels: uint8 [H, W], void = 255.
        classes: the prediction, uint8 [H, W].
        num_classes: K.

    Returns:
        int64 [K, 4]: predicted, predicted and met, labelled, labelled and met.
    """
    height, width = labels.shape
    reach = max(1, round(TOLERANCE * math.hypot(height, width)))
    void = labels == VOID
    counts = torch.zeros(num_classes, 4, dtype=torch.int64, device=labels.device)
    for number in torch.unique(torch.cat((labels[~void], classes[~void]))).tolist():
        predicted, labelled = (_boundary((x == number) & ~void, void) for x in (classes, labels))
        counts[number] = torch.stack(
            (
                predicted.sum(),
                (predicted & _dilate(labelled, reach)).sum(),
                labelled.sum(),
                (labelled & _dilate(predicted, reach)).sum(),
            )
        )
    return counts


def _boundary(mask: Tensor, void: Tensor) -> Tensor:
    outside = ~(mask | void)
    beside = torch.zeros_like(mask)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return mask & beside


def _dilate(mask: Tensor, reach: int) -> Tensor:
    grown = mask[None].half() if mask.is_cuda else mask[None].float()
    for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        grown = functional.max_pool2d(grown, kernel, 1, padding)
    return grown[0] > 0


def boundary_f_score(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return F = 2 P R / (P + R) of each class, float64 [K]; nan where it has no boundary at all.

    Args:
        counts: int64 [K, 4], sums of `boundary_counts`.
    """
    predicted, predicted_met, labelled, labelled_met = counts.T.astype(np.float64)
    precision = predicted_met / np.maximum(predicted, 1)
    recall = labelled_met / np.maximum(labelled, 1)
    total = precision + recall
    score = 2 * precision * recall / np.where(total > 0, total, 1)
    return np.where(predicted + labelled > 0, score, np.nan)


def summarise_boundaries(counts: NDArray[np.int64]) -> dict[str, object]:
    """Return the boundary F-scores as JSON values; None for a class without boundaries."""
    scores = boundary_f_score(counts)
    return {
        "boundary_f": [json_number(score) for score in scores],
        "mean_boundary_f": json_number(mean_of_known(scores)),
    }
