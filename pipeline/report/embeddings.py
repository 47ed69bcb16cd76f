"""Pixel embeddings of a few networks: drawn in two dimensions, and stored small for the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.samples import Shown
from store.grid import nearest
from store.schema import VOID

MOST_POINTS = 800
"""Pixels of one network that are drawn, in equal shares of its classes."""
FEWEST_POINTS = 12
PERPLEXITY = 30
DIRECTIONS = 32
"""Of the embeddings' greatest length, which the page keeps."""


@dataclass(frozen=True)
class Space:
    """Embeddings of one network in two dimensions.

    Attributes:
        name: of the network.
        points: float64 [N, 2].
        classes: uint8 [N].
        silhouettes: of every class that is drawn, its pixels' mean, in all dimensions: 1 = far
            from every other class, 0 = between two, below = nearer to another.
    """

    name: str
    points: NDArray[np.float64]
    classes: NDArray[np.uint8]
    silhouettes: dict[int, float]

    @property
    def silhouette(self) -> float:
        """Return the mean over the classes."""
        return sum(self.silhouettes.values()) / len(self.silhouettes)


def draw_space(name: str, shown: Sequence[Shown]) -> Space | None:
    """Lay out a network's embeddings of labelled pixels by t-SNE; None where too few differ.

    The pixels are drawn with a seed, classes alike, and of all networks of one feature grid
    the same ones.

    Args:
        name: of the network, which is among the predictions of every sample.
        shown: the samples whose pixels are drawn.
    """
    # Both import scipy: only the report needs them.
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_samples

    points, classes = _draw_pixels(name, shown)
    present = np.unique(classes)
    distinct = len(np.unique(points, axis=0))
    if len(present) < 2 or distinct < max(FEWEST_POINTS, len(present) + 1):
        return None
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
    silhouettes = silhouette_samples(points, classes)
    means = {int(k): float(silhouettes[classes == k].mean()) for k in present}
    return Space(name, layout.astype(np.float64), classes, means)


def _draw_pixels(
    name: str, shown: Sequence[Shown]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw labelled pixels, classes alike: embeddings [N, D] and classes [N]."""
    found = [(one.labels, one.prediction(name).embeddings) for one in shown]
    labels = np.concatenate([nearest(grid, *maps.shape[1:]).ravel() for grid, maps in found])
    points = np.concatenate([maps.reshape(len(maps), -1).T for _, maps in found])
    present = np.unique(labels[labels != VOID])
    random = np.random.default_rng(0)
    share = MOST_POINTS // max(1, len(present))
    drawn = [random.permutation(np.flatnonzero(labels == k))[:share] for k in present]
    order = np.sort(np.concatenate([np.empty(0, np.intp), *drawn]))
    return points[order], labels[order]


def sample_maps(one: Shown, names: Sequence[str]) -> dict[str, Any]:  # JSON
    """Store what the page's similarity maps need of one sample: labels, and embeddings by network.

    Args:
        one: the sample.
        names: of the networks.
    """
    maps = [{"name": name, **compress(one.prediction(name).embeddings)} for name in names]
    height, width = max((found["height"], found["width"]) for found in maps)
    labels = nearest(one.labels, height, width)
    return {
        "key": one.key,
        "labels": {"height": height, "width": width, "values": _base64(labels)},
        "maps": maps,
    }


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def compress(embeddings: NDArray[np.float32]) -> dict[str, Any]:  # JSON
    """Keep of embeddings what their similarities need, in int8 along a few directions.

    The directions are those of the greatest squared length, about zero and not about the mean, so
    that inner products stay.

    Args:
        embeddings: [D, h, w].

    Returns:
        height, width, the scale of each direction, its values in turn as base64 [r, h, w], and the
        share of the squared length that they keep.
    """
    channels, height, width = embeddings.shape
    cells = embeddings.reshape(channels, -1).astype(np.float64)
    _, vectors = np.linalg.eigh(cells @ cells.T)
    kept = vectors[:, ::-1][:, :DIRECTIONS].T @ cells
    scales = np.maximum(np.abs(kept).max(axis=1), 1e-12) / 127
    rounded = np.rint(kept / scales[:, None]).astype(np.int8)
    return {
        "height": height,
        "width": width,
        "scales": [float(f"{scale:.4g}") for scale in scales],
        "values": _base64(rounded),
        "kept": float((kept**2).sum() / max((cells**2).sum(), 1e-12)),
    }
