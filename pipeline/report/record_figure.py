"""One record of a store as a figure: image, labels, and the teacher's targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from store.grid import nearest
from store.reader import Reader
from store.schema import VOID


def draw_record(reader: Reader, record: int, path: Path) -> None:
    """Draw image, labels, and of the stored targets the teacher's classes and features' length.

    Args:
        reader: an open store.
        record: its number.
        path: the figure, a PNG.
    """
    arrays = reader.read([record], list(reader.arrays))
    names, grid = reader.spec.class_names, arrays["labels"][0]
    present = len(np.unique(grid[grid != VOID]))
    panels = {
        f"image  {arrays['key'][0]}, view {arrays['view_index'][0]}": arrays["image"][0],
        f"labels  {present} of {len(names)} classes": np.ma.masked_equal(grid, VOID),
    }
    if "logits" in reader.spec.targets:
        outputs = reader.decode("logits", arrays)[0].argmax(axis=0)
        grid = nearest(grid, *outputs.shape)
        agreement = (outputs == grid)[grid != VOID].mean() if (grid != VOID).any() else float("nan")
        panels[f"teacher  agrees on {agreement:.0%} of the grid"] = outputs
    if "features" in reader.spec.targets:
        features = reader.decode("features", arrays)[0]
        panels["features  length per pixel"] = np.linalg.norm(features, axis=0)
    figure = Figure(figsize=(11, 11 * reader.spec.height / reader.spec.width + 1.2))
    for number, (title, panel) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(2, 2, number)
        if panel.ndim == 3:
            axes.imshow(panel.transpose(1, 2, 0))
        elif np.issubdtype(panel.dtype, np.floating):
            axes.imshow(panel, cmap="magma")
        else:
            last = max(19, len(names) - 1)
            axes.imshow(panel, cmap="tab20", vmin=0, vmax=last, interpolation="nearest")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=110, format="png")
