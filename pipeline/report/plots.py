"""The files that `dvc plots` draws: of each run its curves, IoU by class, and confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.report.results import Results, RunResult
from store.files import replacing, write_json

PIXELS_PER_CLASS = 100


def write_plots(results: Results, profile: Path) -> None:
    """Write curves/, classes/ and confusion/ into the folder `plots` of a profile, a file a run.

    Args:
        results: of the profile.
        profile: the folder <artifacts>/profiles/<profile>.
    """
    folder, names = profile / "plots", results.index.class_names
    for run in results.runs:
        write_json(list(_curves(run)), folder / "curves" / f"{run.name}.json")
        classes = zip(names, run.scores.iou, strict=True)
        known = [{"class": name, "iou": iou} for name, iou in classes if iou is not None]
        write_json(known, folder / "classes" / f"{run.name}.json")
        if run.scores.confusion:
            confusion = np.array(run.scores.confusion, dtype=np.int64)
            with replacing(folder / "confusion" / f"{run.name}.csv") as partial:
                _write_confusion(confusion, names, partial)


def _curves(run: RunResult) -> Iterator[Mapping[str, float]]:
    """Yield the loss, which is the weighted sum, and the terms of every logged step."""
    for line in run.log:
        loss = sum(run.weights.get(name, 0.0) * value for name, value in line.terms.items())
        yield {"step": line.step, "loss": loss, **line.terms}


def _write_confusion(matrix: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Write PIXELS_PER_CLASS lines a labelled class, in its proportions: DVC counts lines."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("label", "prediction"))
        for name, row in zip(names, matrix, strict=True):
            for prediction, count in zip(names, share_out(row, PIXELS_PER_CLASS), strict=True):
                writer.writerows([(name, prediction)] * int(count))


def share_out(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Scale counts to a total in whole numbers, rounding the largest remainders up; 0 stays 0."""
    if not counts.any():
        return counts
    exact = counts * total / counts.sum()
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    return shares
