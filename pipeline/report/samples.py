"""A few validation samples as the labels, the teacher and every student see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.datasets.index import Index, Sample, read_image, read_labels
from pipeline.models.network import Network, resample
from store.schema import VOID

MOST_CELLS = 4096
"""Of a map of embeddings; a finer one is averaged, which keeps the page small."""


@dataclass(frozen=True)
class NamedNetwork:
    """A network by name: how to load it, and the precision it predicts in."""

    name: str
    load: Callable[[], Network]
    precision: str


@dataclass(frozen=True)
class Prediction:
    """What a network said of one sample.

    Attributes:
        name: of the network.
        classes: uint8 [H, W].
        embeddings: float32 [D, h, w], of length one.
    """

    name: str
    classes: NDArray[np.uint8]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """One sample with the classes every network gave its pixels.

    Attributes:
        key: of the sample.
        image: uint8 [H, W, 3].
        labels: uint8 [H, W], void = 255.
        predictions: one per network, in the order asked for.
    """

    key: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    predictions: tuple[Prediction, ...]

    def prediction(self, name: str) -> Prediction:
        """Return what the network of this name said."""
        return next(one for one in self.predictions if one.name == name)

    def accuracy(self, prediction: Prediction) -> float | None:
        """Return the share of labelled pixels that are right; None without any."""
        valid = self.labels != VOID
        if not valid.any():
            return None
        return float((prediction.classes == self.labels)[valid].mean())


def pick_samples(index: Index, split: str, most: int = 4) -> tuple[Sample, ...]:
    """Pick samples evenly spread over a split: the middles of `most` equal parts."""
    samples = index.splits[split]
    num_parts = min(most, len(samples))
    return tuple(samples[(2 * n + 1) * len(samples) // (2 * num_parts)] for n in range(num_parts))


def show(
    index: Index,
    samples: tuple[Sample, ...],
    networks: Sequence[NamedNetwork],
    device: torch.device,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Shown, ...]:
    """Predict samples at full size with every network, one network in memory at a time.

    Args:
        index: of the dataset.
        samples: of it.
        networks: what to predict with.
        device: to predict on.
        progress: called after each network.
    """
    images = [read_image(index, sample) for sample in samples]
    by_network = []
    for network in networks:
        by_network.append(_predict(network, images, device))
        progress()
    return tuple(
        Shown(sample.key, image, read_labels(index, sample), tuple(predictions))
        for sample, image, *predictions in zip(samples, images, *by_network, strict=True)
    )


def _predict(
    network: NamedNetwork, images: Sequence[NDArray[np.uint8]], device: torch.device
) -> list[Prediction]:
    module = network.load().to(device).eval()
    # A copy: PyTorch warns about images that Pillow marks as read-only.
    batches = (torch.from_numpy(image.copy()).permute(2, 0, 1).unsqueeze(0) for image in images)
    return [_predict_one(network, module, batch.to(device)) for batch in batches]


@torch.inference_mode()
def _predict_one(network: NamedNetwork, module: Network, image: Tensor) -> Prediction:
    output = module.compute_output(image, network.precision)
    logits = module.enlarge_logits(output.logits, image.shape[-2:])
    height, width = output.features.shape[-2:]
    factor = ceil(sqrt(height * width / MOST_CELLS))
    cells = resample(output.features.float(), (ceil(height / factor), ceil(width / factor)))
    return Prediction(
        network.name,
        logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy(),
        functional.normalize(cells, dim=1)[0].cpu().numpy(),
    )
