"""One record of a store as a picture: what was seen, what was labelled, what the teacher said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from store.grid import nearest
from store.reader import Reader
from store.schema import VOID


def draw_record(reader: Reader, record: int, path: Path) -> None:
    """Draw image, labels, the teacher's classes, and the length of its features, as a PNG.

    Args:
        reader: an open store.
        record: its number.
        path: the picture.
    """
    arrays = reader.read([record], list(reader.arrays))
    logits = reader.decode("logits", arrays)[0]
    features = reader.decode("features", arrays)[0]
    names = reader.spec.class_names
    labels = np.ma.masked_equal(arrays["labels"][0], VOID)
    said = logits.argmax(axis=0)
    grid = nearest(arrays["labels"][0], *said.shape)
    agreement = (said == grid)[grid != VOID].mean() if (grid != VOID).any() else float("nan")
    panels = {
        f"image  {arrays['key'][0]}, view {arrays['view_index'][0]}": arrays["image"][0],
        f"labels  {int((arrays['region_pixels'][0] > 0).sum())} of {len(names)} classes": labels,
        f"teacher  agrees on {agreement:.0%} of the grid": said,
        "features  length per pixel": np.linalg.norm(features, axis=0),
    }
    figure = Figure(figsize=(11, 11 * reader.spec.height / reader.spec.width + 1.2))
    for place, (title, panel) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(2, 2, place)
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
