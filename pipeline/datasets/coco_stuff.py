"""COCO-Stuff 164K: images/ of COCO 2017 and annotations/ of stuffthingmaps, 171 classes."""

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
from pipeline.datasets.listing import Listing, pair_splits
from store.schema import VOID

FOLDERS = {split: (f"images/{split}2017", f"annotations/{split}2017") for split in ("train", "val")}
ARCHIVES = """\
COCO-Stuff 164K: unpack train2017.zip and val2017.zip of https://cocodataset.org/#download into
images/, and stuffthingmaps_trainval2017.zip of https://github.com/nightrome/cocostuff into
annotations/:
  images/{train2017,val2017}/000000000139.jpg
  annotations/{train2017,val2017}/000000000139.png"""


class Config(ExternalConfig):
    """The folder that holds images/ and annotations/ of the 2017 sets."""


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Pair the files of train2017 and val2017; `pixels` stays unused."""
    classes = official_table("coco_stuff")
    listing = pair_splits(Path(dataset.root), classes, FOLDERS)
    return replace(listing, archives=ARCHIVES, judge=partial(judge, classes))


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files, wherever the root lies."""
    folders = [name for pair in FOLDERS.values() for name in pair]
    return fingerprint_files(Path(dataset.root), folders, archives=ARCHIVES)


def judge(classes: ClassTable, counts: NDArray[np.int64]) -> list[Finding]:
    """Find train ids, 0-170, and the ids of the 10k version, which are greater by one."""
    unused = np.flatnonzero(~classes.known_ids()[:182])
    if counts[182]:
        what = "ids of COCO-Stuff 10k or of labels.txt, it seems"
    elif counts[unused].any() and not counts[171:VOID].any():
        what = "train ids, it seems"
    else:
        return []
    expected = f"ids 0-181 without {write_ids(unused)}"
    hint = "Give the files of stuffthingmaps_trainval2017.zip as they come."
    return [Finding("all labels", what, expected, write_ids(np.flatnonzero(counts)), hint)]
