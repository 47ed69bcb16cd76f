"""A confusion matrix as a figure: of each class's pixels, what share is taken for which class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

NUMBERS_UP_TO = 30
"""Classes with which shares still fit into their cells."""


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Draw a confusion matrix, each row divided by its sum; rows without a pixel stay blank.

    Args:
        matrix: pixels [K, K], rows are labels, columns predictions.
        names: K of them.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    side = min(40.0, 2.5 + 0.4 * len(names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="label")
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    if len(names) <= NUMBERS_UP_TO:
        for row, column in np.argwhere(shares >= 0.005):
            share = shares[row, column]
            colour = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    return figure
