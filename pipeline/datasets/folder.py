"""Any dataset as a folder: images/<split>/, labels/<split>/ matched by stem, and classes.yaml."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.datasets import ExternalConfig
from pipeline.datasets.classes import read_classes
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.listing import Listing, pair_splits

FOLDERS = {split: (f"images/{split}", f"labels/{split}") for split in ("train", "val", "test")}
CLASSES_FILE = "classes.yaml"
ARCHIVES = """\
The folder is laid out by you:
  images/{train,val}/NAME.jpg, labels/{train,val}/NAME.png with equal names, also in folders below;
  so for test, if any
  classes.yaml, the meaning of the label files"""


class Config(ExternalConfig):
    """A folder with images/<split>/, labels/<split>/ matched by stem, and classes.yaml."""


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Read classes.yaml and pair the files of every split; `pixels` stays unused.

    Raises:
        DatasetError: classes.yaml is missing or wrong, so no label can be judged.
    """
    root = Path(dataset.root)
    classes = read_classes(root / CLASSES_FILE)
    return replace(pair_splits(root, classes, FOLDERS, nested=True), archives=ARCHIVES)


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files and the class table, wherever the root lies."""
    folders = [name for pair in FOLDERS.values() for name in pair]
    return fingerprint_files(Path(dataset.root), folders, [CLASSES_FILE], ARCHIVES)
