"""What a student of the best row takes for what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.report.comparison import Row

MOST_CONFUSED = 24
"""Classes of a confusion matrix that are shown, those with most mistaken pixels."""


@dataclass(frozen=True)
class Confusion:
    """Of some classes: by label, the share of its pixels 0..1 that each class was predicted for."""

    run: str
    classes: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]

    @property
    def most(self) -> list[tuple[int, int, float]]:
        """Return the largest mistakes, a tenth of a label or more: label, prediction, share."""
        found = [
            (label, predicted, share)
            for label, row in zip(self.classes, self.shares, strict=True)
            for predicted, share in zip(self.classes, row, strict=True)
            if label != predicted and share >= 0.1
        ]
        return sorted(found, key=lambda mistake: -mistake[2])[:3]


def find_confusion(best: Row | None) -> Confusion | None:
    """Return that of the best row's first run; None where nobody kept it."""
    if best is None or not best.runs[0].scores.confusion:
        return None
    counts = np.array(best.runs[0].scores.confusion)
    labelled, predicted = counts.sum(axis=1), counts.sum(axis=0)
    mistaken = labelled + predicted - 2 * np.diag(counts)
    most = np.argsort(-mistaken, kind="stable")[:MOST_CONFUSED]
    shown = np.sort(most[labelled[most] > 0])
    shares = counts[np.ix_(shown, shown)] / labelled[shown, None]
    return Confusion(best.runs[0].name, tuple(shown.tolist()), tuple(map(tuple, shares.tolist())))
