"""Predictions as label files: at the image's size, under its name, in the dataset's own ids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.index import ClassTable, Sample
from store.files import replace_file


def write_prediction(
    folder: Path, sample: Sample, classes: NDArray[np.uint8], table: ClassTable
) -> Path:
    """Write the predicted classes of a sample as a grey PNG of label ids, and return its path.

    The ids are those of the dataset's label files, which its test server expects, too: Cityscapes'
    labelIds, ADE20K's 1..150.

    Args:
        folder: gets <key without the split>.png.
        sample: that was predicted.
        classes: uint8 [H, W].
        table: of the dataset.
    """
    path = folder / f"{sample.key.partition('/')[2]}.png"
    write_png(Image.fromarray(np.array(table.label_ids, np.uint8)[classes]), path)
    return path


def write_png(image: Image.Image, path: Path) -> None:
    """Write a PNG; the file appears by os.replace."""
    content = io.BytesIO()
    image.save(content, "PNG")
    replace_file(path, content.getvalue())
