"""Pages of fabricated results, in which every network takes all for road."""

from pathlib import Path

import numpy as np

from pipeline.config.params import Params
from pipeline.datasets.index import read_image, read_labels
from pipeline.report.page import build_page, choose_shown
from pipeline.report.results import Results, gather
from pipeline.report.samples import Prediction, Shown, pick_samples
from store.grid import nearest

GRID = (5, 7)


def see(results: Results, noise: float = 0.0) -> list[Shown]:
    """The samples as the networks see them; their embeddings are the label's axis, and noise."""
    names = ["teacher", *(run.name for run in choose_shown(results.runs))]
    random = np.random.default_rng(0)
    shown = []
    for sample in pick_samples(results.index, "val"):
        labels = read_labels(results.index, sample)
        axes = np.eye(6, dtype=np.float32)[np.minimum(nearest(labels, *GRID), 5)]
        predictions = []
        for name in names:
            cells = axes + noise * random.standard_normal((*GRID, 6), dtype=np.float32)
            cells /= np.linalg.norm(cells, axis=-1, keepdims=True)
            predictions.append(Prediction(name, np.zeros_like(labels), cells.transpose(2, 0, 1)))
        image = read_image(results.index, sample)
        shown.append(Shown(sample.key, image, labels, tuple(predictions)))
    return shown


def page_of(profile: Path, params: Params, noise: float = 0.0) -> str:
    """The page of a profile."""
    results = gather(profile, params)
    return build_page(results, see(results, noise))
