"""Cityscapes as its archives unpack: leftImg8bit/ and gtFine/, 19 classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config.datasets import ExternalConfig
from pipeline.datasets.classes import official_table
from pipeline.datasets.errors import Finding
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.index import write_ids
from pipeline.datasets.listing import Listing, pair_splits
from store.schema import VOID

FOLDERS = {
    split: (f"leftImg8bit/{split}/*", f"gtFine/{split}/*") for split in ("train", "val", "test")
}
SUFFIXES = {"ids": "_gtFine_labelIds", "train_ids": "_gtFine_labelTrainIds"}
ARCHIVES = """\
Cityscapes: https://www.cityscapes-dataset.com/downloads/ (an account is needed). Unpack
leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into the same folder:
  leftImg8bit/{train,val,test}/CITY/CITY_000000_000019_leftImg8bit.png
  gtFine/{train,val,test}/CITY/CITY_000000_000019_gtFine_labelIds.png
*_gtFine_labelTrainIds.png, for `labels: train_ids`, are in no archive: csCreateTrainIdLabelImgs of
cityscapesScripts writes them."""


class Config(ExternalConfig):
    """The folder that holds leftImg8bit/ and gtFine/, and which label files to read."""

    labels: Literal["ids", "train_ids"] = "ids"


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Pair the files of every city; `pixels` stays unused."""
    classes, judge = official_table("cityscapes"), judge_ids
    if dataset.labels == "train_ids":
        train_ids = tuple(range(len(classes.names)))
        classes, judge = replace(classes, label_ids=train_ids, void_ids=(VOID,)), judge_train_ids
    suffixes = ("_leftImg8bit", SUFFIXES[dataset.labels])
    listing = pair_splits(Path(dataset.root), classes, FOLDERS, suffixes)
    return replace(listing, archives=ARCHIVES, judge=judge)


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files, wherever the root lies."""
    folders = [name for pair in FOLDERS.values() for name in pair]
    return fingerprint_files(Path(dataset.root), folders, archives=ARCHIVES)


def judge_ids(counts: NDArray[np.int64]) -> list[Finding]:
    """Find train ids where label ids are read: in every real set there are ids above 18."""
    if counts[19:VOID].any() or not counts[[7, 8, 11, 12, 13, 17, VOID]].any():
        return []
    hint = (
        "Give *_gtFine_labelIds.png, or set `labels: train_ids`, which reads *_labelTrainIds.png."
    )
    found = write_ids(np.flatnonzero(counts))
    return [Finding("all labels", "train ids, it seems", "label ids, up to 33", found, hint)]


def judge_train_ids(counts: NDArray[np.int64]) -> list[Finding]:
    """Find label ids where train ids are read."""
    if not counts[19:34].any() or counts[34:].any():
        return []
    hint = "Give *_gtFine_labelTrainIds.png, or set `labels: ids`, which reads *_labelIds.png."
    found = write_ids(np.flatnonzero(counts))
    return [Finding("all labels", "label ids, it seems", "train ids, 0-18 and 255", found, hint)]
