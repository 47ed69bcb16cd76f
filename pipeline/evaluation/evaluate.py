"""Full-size predictions on a split, counted once each in one confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pipeline.datasets.index import Index, read_image, read_labels
from pipeline.models.network import Network, predict
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from store.metrics import (
    confusion_matrix,
    iou_per_class,
    json_number,
    list_confused,
    mean_iou,
    pixel_accuracy,
)
from store.order import rank_shard


def evaluate(
    network: Network,
    index: Index,
    split: str,
    device: torch.device,
    precision: str,
    progress: Callable[[], None] = lambda: None,
    ranks: Ranks = SINGLE_PROCESS,
) -> np.ndarray:
    """Count a network's full-size predictions on a split: int64 [K, K], rows are labels.

    Args:
        network: put into eval mode.
        index: of the dataset.
        split: its name; every sample counts exactly once, whatever the number of ranks.
        device: where the network is.
        precision: float32, bfloat16 or float16.
        progress: called after each image of this rank.
        ranks: among which the samples are sharded.
    """
    network.eval()
    num_classes, samples = index.num_classes, index.splits[split]
    total = np.zeros((num_classes, num_classes), dtype=np.int64)
    for position in rank_shard(np.arange(len(samples)), ranks.rank, ranks.size):
        sample = samples[position]
        image = torch.tensor(read_image(index, sample)).permute(2, 0, 1).unsqueeze(0)
        predictions = predict(network, image.to(device), precision)[0].cpu().numpy()
        total += confusion_matrix(read_labels(index, sample), predictions, num_classes)
        progress()
    return ranks.sum(torch.from_numpy(total).to(device)).cpu().numpy()


def summarise(confusion: np.ndarray) -> dict[str, object]:
    """Return the figures of a confusion matrix as JSON values; IoU is None for an absent class."""
    return {
        "miou": json_number(mean_iou(confusion)),
        "iou": [json_number(value) for value in iou_per_class(confusion)],
        "pixel_accuracy": json_number(pixel_accuracy(confusion)),
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
