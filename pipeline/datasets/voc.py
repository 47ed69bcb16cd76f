"""Pascal VOC 2012, with or without SBD's additional labels, 21 classes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.datasets import ExternalConfig
from pipeline.datasets.classes import official_table
from pipeline.datasets.errors import Finding
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.index import ClassTable, write_ids
from pipeline.datasets.listing import (
    Listing,
    find_base,
    find_folders,
    list_files,
    pair_splits,
    read_splits,
    readable_suffixes,
)

BASES = ("VOCdevkit/VOC2012", "VOC2012", "VOCAug")
IMAGES, LABELS, AUGMENTED_LABELS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
SPLIT_FILES = {split: f"ImageSets/Segmentation/{split}.txt" for split in ("train", "val")}
VOID_COLOUR = (224, 224, 192)
ARCHIVES = """\
Pascal VOC 2012: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/. VOCtrainval_11-May-2012.tar
unpacks to
  VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
  VOCdevkit/VOC2012/SegmentationClass/2007_000032.png
  VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
The root is VOC2012 itself, VOCAug, or the folder above it. `augmented: true` also needs
  VOCdevkit/VOC2012/SegmentationClassAug/2007_000032.png
which are the masks of SBD as PNG (http://home.bharathh.info/pubs/codes/SBD/download.html has them
as .mat files, in benchmark.tgz), together with those of VOC."""


class Config(ExternalConfig):
    """The folder of VOC 2012, and whether SBD's labels are trained on as well."""

    augmented: bool = False


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Pair the files that the split files name; `pixels` stays unused.

    Augmented, train is every file of SegmentationClassAug that val does not name; what a list of
    train names must be there too.

    Raises:
        DatasetError: a split file is missing.
    """
    root = Path(dataset.root)
    base = find_base(root, IMAGES, *BASES)
    train_labels = AUGMENTED_LABELS if dataset.augmented else LABELS
    files = {split: f"{base}{name}" for split, name in SPLIT_FILES.items()}
    if dataset.augmented:
        stems = read_splits(root, {"val": files.pop("val")}, ARCHIVES)
        folders = find_folders(root, f"{base}{AUGMENTED_LABELS}")
        paths = [path for name in folders for path in list_files(root / name)]
        every = {path.stem for path in paths if path.suffix.lower() in readable_suffixes()}
        if (root / files["train"]).exists():
            every |= read_splits(root, files, ARCHIVES)["train"]
        stems["train"] = frozenset(every) - stems["val"]
    else:
        stems = read_splits(root, files, ARCHIVES)
    folders_of = {
        "train": (f"{base}{IMAGES}", f"{base}{train_labels}"),
        "val": (f"{base}{IMAGES}", f"{base}{LABELS}"),
    }
    classes = official_table("voc")
    listing = pair_splits(root, classes, folders_of, stems=stems)
    return replace(listing, archives=ARCHIVES, judge=partial(judge, classes))


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files and the split files, wherever the root lies."""
    root = Path(dataset.root)
    base = find_base(root, IMAGES, *BASES)
    folders = [f"{base}{name}" for name in (IMAGES, LABELS, AUGMENTED_LABELS)]
    files = [f"{base}{name}" for name in SPLIT_FILES.values()]
    return fingerprint_files(root, folders, files, ARCHIVES)


def judge(classes: ClassTable, counts: NDArray[np.int64]) -> list[Finding]:
    """Find palettes that a program turned into grey: 38 and 75, say, for aeroplane and bicycle."""
    unknown = np.flatnonzero((counts > 0) & ~classes.known_ids())
    greys = np.array([*classes.palette, VOID_COLOUR]) @ (0.299, 0.587, 0.114)
    rounded = {*np.floor(greys), *np.ceil(greys)}
    if not unknown.size or not rounded.issuperset(unknown):
        return []
    hint = "Give the palette PNGs as they come; a converter must not turn their colours into grey."
    found = write_ids(unknown)
    return [Finding("all labels", "grey of the palette's colours", "ids 0-20, 255", found, hint)]
