"""Which image file goes with which label file, by stem, and what the folders get wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from PIL import Image

from pipeline.datasets.errors import Finding
from pipeline.datasets.index import FORMATS, UNLABELLED, ClassTable

IGNORED = frozenset({"Thumbs.db", "desktop.ini"})
"""Left behind by file browsers, like every name with a leading dot."""
REQUIRED_SPLITS = ("train", "val")


@dataclass(frozen=True)
class Pair:
    """An image file and its label file ("" for none), relative to the root, not yet opened."""

    key: str
    image: str
    labels: str


@dataclass(frozen=True)
class Listing:
    """What a dataset's folders hold; `findings` is empty where nothing is wrong so far.

    `in_pixels`: the files were written into `pixels` rather than found in the dataset's root.
    """

    classes: ClassTable
    splits: Mapping[str, tuple[Pair, ...]]
    findings: tuple[Finding, ...] = ()
    in_pixels: bool = False


def list_files(folder: Path) -> list[Path]:
    """List a folder in the order of names, without what file browsers left."""
    names = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in names if path.name not in IGNORED)


def list_tree(folder: Path) -> list[Path]:
    """List the files of a folder and of the folders in it, as `list_files` does; follow no link."""
    return [
        file
        for path in list_files(folder)
        for file in (list_tree(path) if path.is_dir() and not path.is_symlink() else [path])
    ]


def add_unlabelled(listing: Listing, root: Path, folder: str) -> Listing:
    """Add the images of a folder, and of the folders in it, as the split without labels."""
    if not (root / folder).is_dir():
        findings = [Finding(folder, "missing folder", "a folder of images", "nothing")]
        return replace(listing, findings=(*listing.findings, *findings))
    images, findings = _by_stem(root, folder, "image", list_tree)
    if not images:
        findings.append(Finding(folder, "empty folder", "at least one image", "none"))
    pairs = tuple(Pair(f"{UNLABELLED}/{stem}", images[stem][0], "") for stem in sorted(images))
    return replace(
        listing,
        splits={**listing.splits, UNLABELLED: pairs},
        findings=(*listing.findings, *findings),
    )


def pair_splits(root: Path, classes: ClassTable, folders: Mapping[str, tuple[str, str]]) -> Listing:
    """Pair the files of every split by stem; a split other than train and val may be missing.

    Args:
        root: the dataset's folder.
        classes: its class table, passed on.
        folders: split -> (folder of images, folder of labels), relative to root.
    """
    splits: dict[str, tuple[Pair, ...]] = {}
    findings: list[Finding] = []
    for split, pair_of_folders in folders.items():
        missing = [folder for folder in pair_of_folders if not (root / folder).is_dir()]
        if len(missing) == 2 and split not in REQUIRED_SPLITS:
            continue
        findings += [Finding(folder, "missing folder", "a folder", "nothing") for folder in missing]
        if not missing:
            splits[split], found = _pair(root, split, *pair_of_folders)
            findings += found
    return Listing(classes, splits, tuple(findings))


def _pair(
    root: Path, split: str, image_folder: str, label_folder: str
) -> tuple[tuple[Pair, ...], list[Finding]]:
    images, image_findings = _by_stem(root, image_folder, "image")
    labels, label_findings = _by_stem(root, label_folder, "labels")
    findings = image_findings + label_findings
    if not images:
        findings.append(Finding(image_folder, "empty split", "at least one image", "none"))
    for stem in images.keys() - labels.keys():
        wanted = f"{label_folder}/{stem}.*"
        findings.append(Finding(images[stem][0], "missing labels", wanted, "no such file"))
    for stem in labels.keys() - images.keys():
        wanted = f"{image_folder}/{stem}.*"
        findings.append(Finding(labels[stem][0], "labels without image", wanted, "no such file"))
    pairs = [
        Pair(f"{split}/{stem}", image, label)
        for stem in sorted(images.keys() & labels.keys())
        for image, label in zip(images[stem], labels[stem], strict=False)
    ]
    return tuple(pairs), findings


def _by_stem(
    root: Path, folder: str, role: str, list_folder: Callable[[Path], list[Path]] = list_files
) -> tuple[dict[str, list[str]], list[Finding]]:
    """List a folder's files by stem, as paths relative to root, with findings for all others."""
    files: dict[str, list[str]] = {}
    findings = []
    for path in list_folder(root / folder):
        inner = path.relative_to(root / folder)
        name = f"{folder}/{os.fsencode(inner).decode(errors='backslashreplace')}"
        if name != f"{folder}/{inner}":
            findings.append(Finding(name, "name not in UTF-8", "a name in UTF-8", "other bytes"))
        elif path.is_file() and path.suffix.lower() in _readable_suffixes():
            files.setdefault(str(inner.with_suffix("")), []).append(name)
        else:
            expected = f"only files that hold {role}, by a suffix such as .png or .jpg"
            found = f"suffix {path.suffix or '(none)'}"
            if not path.is_file():  # a FIFO, say, is never opened: that would wait for ever
                found = "a folder" if path.is_dir() else "what is no file"
            findings.append(Finding(name, f"not {role}", expected, found))
    findings += [
        Finding(name, "duplicate key", f"one file {folder}/{stem}.*", f"{names[0]} too")
        for stem, names in files.items()
        for name in names[1:]
    ]
    return files, findings


@cache
def _readable_suffixes() -> frozenset[str]:
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in suffixes.items() if kind in FORMATS)
