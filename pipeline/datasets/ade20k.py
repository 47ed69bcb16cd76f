"""ADE20K's scene parsing benchmark (ADEChallengeData2016), 150 classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.datasets import ExternalConfig
from pipeline.datasets.classes import official_table
from pipeline.datasets.errors import Finding
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.listing import Listing, find_base, pair_splits

SPLITS = {"train": "training", "val": "validation"}
ARCHIVES = """\
ADE20K scene parsing: http://sceneparsing.csail.mit.edu/. ADEChallengeData2016.zip unpacks to
  ADEChallengeData2016/images/{training,validation}/ADE_train_00000001.jpg
  ADEChallengeData2016/annotations/{training,validation}/ADE_train_00000001.png
The root is this folder or the one that holds it. The full ADE20K release (*_seg.png) is another
dataset."""
ORIGINAL = "Give the annotations as they come: 0 is void, 1-150 are the classes."


class Config(ExternalConfig):
    """The folder that is or holds ADEChallengeData2016."""


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Pair the files of training and validation; `pixels` stays unused."""
    root = Path(dataset.root)
    listing = pair_splits(root, official_table("ade20k"), _folders(root))
    return replace(listing, archives=ARCHIVES, judge=judge)


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files, wherever the root lies."""
    root = Path(dataset.root)
    folders = [name for pair in _folders(root).values() for name in pair]
    return fingerprint_files(root, folders, archives=ARCHIVES)


def judge(counts: NDArray[np.int64]) -> list[Finding]:
    """Find ids that were shifted by one, once, twice, or the other way."""
    void, last = "void as id 0", "ids up to 150"
    if counts[254]:
        problem = ("ids shifted down twice, it seems", void, "254")
    elif counts[255]:
        problem = ("ids shifted down already, it seems", void, "255")
    elif counts[:150].all() and not counts[150]:
        problem = ("ids shifted down already, it seems", last, "0-149")
    elif counts.any() and not counts[0]:
        problem = (
            "ids without void",
            f"{void} somewhere, as in every real set",
            "no pixel of id 0",
        )
    else:
        return []
    return [Finding("all labels", *problem, ORIGINAL)]


def _folders(root: Path) -> dict[str, tuple[str, str]]:
    base = find_base(root, "images", "ADEChallengeData2016")
    return {
        split: (f"{base}images/{name}", f"{base}annotations/{name}")
        for split, name in SPLITS.items()
    }
