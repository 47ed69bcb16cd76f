"""Full-size predictions on a split, counted once each in one confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.datasets.index import Index, Sample, read_image, read_labels
from pipeline.evaluation.inference import Inference, Predictor, predict_classes
from pipeline.runtime.ahead import ahead
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from store.metrics import (
    accuracy_per_class,
    confusion_matrix,
    dice_per_class,
    frequency_weighted_iou,
    iou_per_class,
    json_number,
    list_confused,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)
from store.progress import Progress

Observe = Callable[[Sample, NDArray[np.uint8], Tensor], None]
"""Is shown each sample, its labels [H, W], and its classes, uint8 [H, W] on the device."""


def evaluate(
    network: Predictor,
    index: Index,
    split: str,
    device: torch.device,
    inference: Inference,
    progress: Progress = lambda done, total: None,
    ranks: Ranks = SINGLE_PROCESS,
    observe: Observe = lambda sample, labels, classes: None,
) -> NDArray[np.int64]:
    """Count a network's full-size predictions on a split: int64 [K, K], rows are labels.

    Batches are formed before they are shared out, so that what is predicted does not depend on the
    number of ranks.

    Args:
        network: what scores images; a module is put into eval mode.
        index: of the dataset.
        split: its name; every sample counts exactly once, whatever the number of ranks.
        device: where the network is.
        inference: how images are predicted.
        progress: called by the first rank, with its (images done, images in all).
        ranks: among which the batches are sharded.
        observe: shown every prediction of this rank.
    """
    if isinstance(network, nn.Module):
        network.eval()
    num_classes = index.num_classes
    total = np.zeros((num_classes, num_classes), dtype=np.int64)
    batches = _batches(index.splits[split], inference.batch_size)
    own = batches[ranks.rank :: ranks.size]
    done, num_images = 0, sum(map(len, own))
    if ranks.is_main:
        progress(done, num_images)
    for batch, (images, labels) in zip(own, ahead(partial(_read, index), own), strict=True):
        classes = predict_classes(network, images.to(device), inference)
        for sample, wanted, predicted in zip(batch, labels, classes, strict=True):
            total += confusion_matrix(wanted, predicted.cpu().numpy(), num_classes)
            observe(sample, wanted, predicted)
        done += len(batch)
        if ranks.is_main:
            progress(done, num_images)
    return ranks.sum(torch.from_numpy(total).to(device)).cpu().numpy()


def _batches(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Form batches of images of one size, in the order of their first image."""
    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        by_size.setdefault((sample.height, sample.width), []).append(sample)
    return [
        alike[first : first + size]
        for alike in by_size.values()
        for first in range(0, len(alike), size)
    ]


def _read(index: Index, batch: list[Sample]) -> tuple[Tensor, list[NDArray[np.uint8]]]:
    """Read a batch's images, uint8 [B, 3, H, W], and their labels."""
    images = np.stack([read_image(index, sample) for sample in batch])
    labels = [read_labels(index, sample) for sample in batch]
    return torch.from_numpy(images).permute(0, 3, 1, 2), labels


def summarise(confusion: NDArray[np.int64]) -> dict[str, object]:
    """Return the figures of a confusion matrix as JSON values; None for a class that is absent."""
    by_class = {"iou": iou_per_class, "dice": dice_per_class, "accuracy": accuracy_per_class}
    overall = {
        "miou": mean_iou,
        "pixel_accuracy": pixel_accuracy,
        "mean_accuracy": mean_accuracy,
        "frequency_weighted_iou": frequency_weighted_iou,
    }
    return {
        **{name: json_number(figure(confusion)) for name, figure in overall.items()},
        **{name: [json_number(x) for x in figure(confusion)] for name, figure in by_class.items()},
        "confusion": confusion.tolist(),
    }


def find_doubts(confusion: np.ndarray, class_names: Sequence[str], min_miou: float) -> list[str]:
    """Say in a sentence each what speaks against distilling from a teacher.

    Args:
        confusion: of its predictions, [K, K], rows are labels.
        class_names: K of them.
        min_miou: the mIoU from which on it is good enough.
    """
    doubts, miou = [], mean_iou(confusion)
    if not miou >= min_miou:  # nan, too
        doubts.append(f"its mIoU is {miou:.3f}, below {min_miou}")
    confused = [f"{class_names[i]} as {class_names[j]}" for i, j in list_confused(confusion)]
    if confused:
        doubts.append(f"it predicts {', '.join(confused)}: are its classes in the dataset's order?")
    return doubts
