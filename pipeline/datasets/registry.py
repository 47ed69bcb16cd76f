"""Datasets: three kinds, one index, and a check of every file before anything trusts one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.datasets import camvid, folder
from pipeline.datasets.checking import Progress, check_listing
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.index import Index
from pipeline.datasets.scenes import dataset as scenes

if TYPE_CHECKING:
    from pipeline.config.params import DatasetConfig

DATASETS: dict[str, ModuleType] = {"scenes": scenes, "camvid": camvid, "folder": folder}
"""Kind -> module with `fingerprint(dataset)` and `list_samples(dataset, pixels)`."""


def fingerprint_dataset(dataset: DatasetConfig) -> dict[str, Any]:
    """What identifies a dataset's content, cheaply: {"kind", "fingerprint", and what went into it}.

    Raises:
        DatasetError: the dataset's root does not exist.
    """
    return {"kind": dataset.kind, **DATASETS[dataset.kind].fingerprint(dataset)}


def prepare_dataset(
    dataset: DatasetConfig, fingerprint: str, pixels: Path, progress: Progress | None = None
) -> Index:
    """Generate or list a dataset and open every file of it.

    Args:
        dataset: which one.
        fingerprint: "fingerprint" of `fingerprint_dataset`, passed into the index.
        pixels: folder for the files of generated datasets; stays empty for the others.
        progress: called with (samples checked, samples in all).

    Raises:
        DatasetError: with all findings; there is no index then.
    """
    pixels.mkdir(parents=True, exist_ok=True)
    listing = DATASETS[dataset.kind].list_samples(dataset, pixels)
    root = pixels if dataset.kind == "scenes" else Path(dataset.root)
    checked = check_listing(root, listing, progress)
    if findings := (*listing.findings, *checked.findings):
        raise DatasetError(str(root), findings)
    return Index(
        name=dataset.name,
        kind=dataset.kind,
        root=root.as_posix(),
        fingerprint=fingerprint,
        classes=listing.classes,
        splits=checked.splits,
        most_classes=checked.most_classes,
    )
