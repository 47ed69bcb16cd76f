"""What a prediction is shown as: label files, colours, overlays, and the share of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.datasets.contact_sheet import MARGIN, PAPER, draw_legend, overlay
from pipeline.datasets.decoding import decode_image
from pipeline.datasets.index import ClassTable
from pipeline.evaluation.inference import Inference, Predictor, predict_classes
from pipeline.evaluation.label_files import write_png
from store.files import reading

LARGE_PX = 4_000_000
"""Pixels of an image from which on windows are slid over it, unless a window is given."""
WINDOW = 1024
KINDS = ("labels", "colours", "overlays")
"""Folders that get a PNG of each image."""


@dataclass(frozen=True)
class Pictures:
    """The pictures that predictions are written as.

    Attributes:
        folder: that gets labels/, colours/ and overlays/.
        table: of the classes, by the ids that label files get.
    """

    folder: Path
    table: ClassTable

    def paths(self, name: str) -> list[Path]:
        """Return the files of an image, of each of KINDS."""
        return [self.folder / kind / f"{name}.png" for kind in KINDS]

    def write(self, name: str, image: NDArray[np.uint8], classes: NDArray[np.uint8]) -> None:
        """Write the files of an image.

        Args:
            name: of the image.
            image: uint8 [H, W, 3].
            classes: that were predicted, uint8 [H, W].
        """
        ids = np.array(self.table.label_ids, np.uint8)[classes]
        pictures = (
            Image.fromarray(ids),
            Image.fromarray(np.array(self.table.palette, np.uint8)[classes]),
            overlay(Image.fromarray(image), ids, self.table),
        )
        for picture, path in zip(pictures, self.paths(name), strict=True):
            write_png(picture, path)

    def write_legend(self, shares: Sequence[float]) -> None:
        """Write legend.png: id, colour, name and share of each class."""
        present = {n: x for n, x in zip(self.table.label_ids, shares, strict=True) if x}
        legend = draw_legend(self.table, present, "value, class, share of the pixels")
        write_png(ImageOps.expand(legend, MARGIN, PAPER), self.folder / "legend.png")


def predict_file(
    predictor: Predictor, path: Path, inference: Inference, device: torch.device
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Predict an image file at its size: its pixels, uint8 [H, W, 3], and classes, uint8 [H, W].

    Raises:
        OSError: it cannot be read.
        ValueError: it is no image, or none of the size that the predictor takes.
    """
    with reading(path, "an image", "leave it out, or save it as PNG"):
        image = decode_image(path)
    height, width = image.shape[:2]
    if inference.window is None and height * width > LARGE_PX:
        inference = replace(inference, window=WINDOW)
    # A copy: PyTorch warns about images that Pillow marks as read-only.
    batch = torch.from_numpy(image.copy()).permute(2, 0, 1).unsqueeze(0).to(device)
    return image, predict_classes(predictor, batch, inference)[0].cpu().numpy()


def count_shares(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Return each class's share of counted pixels, by its name."""
    total = max(1, int(counts.sum()))
    return {name: round(int(n) / total, 6) for name, n in zip(names, counts, strict=True)}
