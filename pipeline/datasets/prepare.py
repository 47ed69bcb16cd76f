"""Any dataset by its section of params.yaml: its fingerprint, and its index, every file checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.datasets import DatasetConfig, ExternalConfig, dataset_module
from pipeline.datasets.checking import check_listing
from pipeline.datasets.errors import REMEDY, DatasetError
from pipeline.datasets.fingerprint import fingerprint_files, fingerprint_samples
from pipeline.datasets.index import UNLABELLED, Index
from pipeline.datasets.listing import REQUIRED_SPLITS, Listing, add_unlabelled, list_tree
from store.progress import Progress


def fingerprint_dataset(dataset: DatasetConfig) -> dict[str, Any]:  # JSON
    """Return what changes with a dataset, cheaply: "kind", "fingerprint", what is in it.

    Raises:
        DatasetError: the dataset's root does not exist.
    """
    found = {"kind": dataset.kind, **dataset_module(dataset.kind).fingerprint(dataset)}
    if isinstance(dataset, ExternalConfig) and dataset.unlabelled is not None:
        folder = Path(dataset.root, dataset.unlabelled)
        if folder.is_dir():  # else prepare says so, among all that is wrong
            files = [str(path.relative_to(folder)) for path in list_tree(folder)]
            found[UNLABELLED] = fingerprint_files(folder, [], files)
    return found


def list_dataset(dataset: DatasetConfig, pixels: Path) -> tuple[Path, Listing]:
    """Generate or list a dataset.

    Args:
        dataset: which one.
        pixels: folder for the files of a dataset that is generated or unpacked.

    Returns:
        The root that the listing's paths are relative to, and the listing.

    Raises:
        DatasetError: so much is wrong that nothing can be listed.
    """
    pixels.mkdir(parents=True, exist_ok=True)
    listing: Listing = dataset_module(dataset.kind).list_samples(dataset, pixels)
    if not isinstance(dataset, ExternalConfig):
        return pixels, listing
    root = pixels if listing.in_pixels else Path(dataset.root)
    if dataset.unlabelled is not None:
        folder = Path(dataset.unlabelled)
        if listing.in_pixels:
            folder = Path(dataset.root, folder).absolute()
        listing = add_unlabelled(listing, root, str(folder))
    return root, listing


def prepare_dataset(
    dataset: DatasetConfig,
    fingerprint: str,
    pixels: Path,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Index:
    """Generate or list a dataset and open every file of it.

    Args:
        dataset: which one.
        fingerprint: "fingerprint" of `fingerprint_dataset`, passed into the index of a generated
            dataset; that of any other is of its files' bytes.
        pixels: folder for the files of datasets that are generated or unpacked; else empty.
        progress: called with (samples checked, samples in all).
        notice: called with what is no error, but should be known.

    Raises:
        DatasetError: with all findings; there is no index then.
    """
    root, listing = list_dataset(dataset, pixels)
    checked = check_listing(root, listing, progress)
    if notice is not None:
        for text in checked.notices:
            notice(text)
    if findings := (*listing.findings, *checked.findings):
        raise DatasetError(str(root), findings, find_remedy(listing))
    if isinstance(dataset, ExternalConfig):
        fingerprint = fingerprint_samples(listing.classes, checked.splits)
    return Index(
        name=dataset.name,
        kind=dataset.kind,
        root=root.as_posix(),
        fingerprint=fingerprint,
        classes=listing.classes,
        splits=checked.splits,
        most_classes=checked.most_classes,
    )


def find_remedy(listing: Listing) -> str:
    """Say what to do about findings: also how the dataset unpacks, where a split is missing."""
    whole = all(listing.splits.get(split) for split in REQUIRED_SPLITS)
    return REMEDY if whole else f"{REMEDY}\n{listing.archives}".rstrip()
