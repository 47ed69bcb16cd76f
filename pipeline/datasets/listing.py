"""Which image file goes with which label file, by stem, and what the folders get wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path, PurePath
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.decoding import FORMATS
from pipeline.datasets.errors import REMEDY, DatasetError, Finding
from pipeline.datasets.index import UNLABELLED, ClassTable

IGNORED = frozenset({"Thumbs.db", "desktop.ini", "@eaDir", "__MACOSX"})
"""Left behind by file browsers, disk stations and archives, like every name with a leading dot."""
REQUIRED_SPLITS = ("train", "val")
CONVERTED = "_labelTrainIds"
"""Ends the names of label files that converters write beside a dataset's own."""

Judge = Callable[[NDArray[np.int64]], list[Finding]]
"""Find what shows in all labels together: pixels of each id in train and val, int64 [256]."""


@dataclass(frozen=True)
class Pair:
    """An image file and its label file ("" for none), relative to the root, not yet opened."""

    key: str
    image: str
    labels: str


@dataclass(frozen=True)
class Listing:
    """What a dataset's folders hold; `findings` is empty where nothing is wrong so far.

    `archives` says where the files come from and how they unpack; `in_pixels`: they were written
    into `pixels` rather than found in the dataset's root.
    """

    classes: ClassTable
    splits: Mapping[str, tuple[Pair, ...]]
    findings: tuple[Finding, ...] = ()
    archives: str = ""
    judge: Judge | None = None
    in_pixels: bool = False


def list_files(folder: Path) -> list[Path]:
    """List a folder in the order of names, without what file browsers left."""
    return sorted(path for path in folder.iterdir() if not _is_left_behind(path))


def _is_left_behind(path: Path) -> bool:
    return path.name.startswith(".") or path.name in IGNORED


def list_tree(folder: Path) -> list[Path]:
    """List the files of a folder and of the folders in it, as `list_files` does; follow no link."""
    return [
        file
        for path in list_files(folder)
        for file in (list_tree(path) if path.is_dir() and not path.is_symlink() else [path])
    ]


def find_folders(root: Path, pattern: str) -> list[str]:
    """Find the folders, relative to root, that `pattern` names; `*` in it stands for any name."""
    found = [pattern]
    if "*" in pattern:
        paths = sorted(path for path in root.glob(pattern) if not _is_left_behind(path))
        found = [path.relative_to(root).as_posix() for path in paths]
    return [name for name in found if (root / name).is_dir()]


def find_base(root: Path, marker: str, *bases: str) -> str:
    """Find the first of some folders below root in which `marker` exists; "" where none does."""
    return next((f"{base}/" for base in bases if (root / base / marker).exists()), "")


def read_splits(root: Path, files: Mapping[str, str], archives: str) -> dict[str, frozenset[str]]:
    """Read split files: the stem of the first path in each line.

    Args:
        root: the dataset's folder.
        files: split -> its file, relative to root.
        archives: where the files come from.

    Raises:
        DatasetError: with a finding for each that is missing, no text, or empty; or for each image
            that two of them name.
    """
    stems, findings = {}, []
    for split, name in files.items():
        path, found = root / name, "no name in it"
        try:
            text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
            names = (PurePath(line.split()[0]).name for line in text.splitlines() if line.strip())
            stems[split] = frozenset(map(_stem, names))
        except (OSError, ValueError) as error:
            found = str(error)
        if not stems.get(split):
            found = found if path.exists() else "nothing"
            findings.append(
                Finding(name, "missing split file", "a text file, an image a line", found)
            )
    if findings:
        raise DatasetError(str(root), findings, f"{REMEDY}\n{archives}")
    for one, other in combinations(files, 2):
        for stem in stems[one] & stems[other]:
            findings.append(
                Finding(files[one], "image of two splits", f"{stem} in one", f"{files[other]} too")
            )
    if findings:
        raise DatasetError(str(root), findings)
    return stems


def _stem(name: str) -> str:
    """Return a name without the suffix of an image; é is one code point, whoever wrote it."""
    path = PurePath(name)
    is_image = path.suffix.lower() in readable_suffixes()
    return normalize("NFC", path.with_suffix("").as_posix() if is_image else name)


def add_unlabelled(listing: Listing, root: Path, folder: str) -> Listing:
    """Add the images of a folder, and of the folders in it, as the split without labels."""
    if not (root / folder).is_dir():
        findings = [Finding(folder, "missing folder", "a folder of images", "nothing")]
        return replace(listing, findings=(*listing.findings, *findings))
    images, findings = _by_stem(root, _Files(folder, nested=True), "image")
    if not images:
        findings.append(Finding(folder, "empty folder", "at least one image", "none"))
    pairs = tuple(Pair(f"{UNLABELLED}/{stem}", images[stem][0], "") for stem in sorted(images))
    return replace(
        listing,
        splits={**listing.splits, UNLABELLED: pairs},
        findings=(*listing.findings, *findings),
    )


def pair_splits(
    root: Path,
    classes: ClassTable,
    folders: Mapping[str, tuple[str, str]],
    suffixes: tuple[str, str] = ("", ""),
    stems: Mapping[str, frozenset[str]] | None = None,
    nested: bool = False,
) -> Listing:
    """Pair the files of every split by stem; a split other than train and val may be missing.

    Args:
        root: the dataset's folder.
        classes: its class table, passed on.
        folders: split -> (folder of images, folder of labels), relative to root; `*` stands for any
            name.
        suffixes: what the stems of images and of labels end in; it is no part of a sample's key,
            and files without it are passed over.
        stems: split -> the stems of its samples, where a split is not all of its folders.
        nested: whether the files of folders in these folders count, too.
    """
    splits: dict[str, tuple[Pair, ...]] = {}
    findings: list[Finding] = []
    for split, pair_of_folders in folders.items():
        missing = [folder for folder in pair_of_folders if not find_folders(root, folder)]
        if len(missing) == 2 and split not in REQUIRED_SPLITS:
            continue
        findings += [Finding(folder, "missing folder", "a folder", "nothing") for folder in missing]
        if not missing:
            listed = None if stems is None else stems[split]
            images, labels = (
                _Files(*of, listed, nested) for of in zip(pair_of_folders, suffixes, strict=True)
            )
            splits[split], found = _pair(root, split, images, labels)
            findings += found
    return Listing(classes, splits, tuple(findings))


@dataclass(frozen=True)
class _Files:
    """Which files of a folder are meant; `listed` is None where all of them are.

    `nested`: also those of the folders in it.
    """

    folder: str
    suffix: str = ""
    listed: frozenset[str] | None = None
    nested: bool = False

    def key_of(self, stem: str) -> str | None:
        """Return what the suffix leaves of a file's stem, or None for a file to pass over."""
        key = stem.removesuffix(self.suffix)
        converted = stem.endswith(CONVERTED) and not self.suffix.endswith(CONVERTED)
        meant = stem.endswith(self.suffix) and not converted
        return key if meant and (self.listed is None or key in self.listed) else None

    def name(self, stem: str) -> str:
        """Return the name that is looked for."""
        return f"{self.folder}/{stem}{self.suffix}.*"


def _pair(
    root: Path, split: str, image_files: _Files, label_files: _Files
) -> tuple[tuple[Pair, ...], list[Finding]]:
    images, image_findings = _by_stem(root, image_files, "image")
    labels, label_findings = _by_stem(root, label_files, "labels")
    listed = image_files.listed
    findings = image_findings + label_findings
    if not images:
        findings.append(Finding(image_files.folder, "empty split", "at least one image", "none"))
    for stem in (listed or frozenset()) - images.keys():
        wanted = image_files.name(stem)
        findings.append(Finding(wanted, "missing image", f"an image of {split}", "no such file"))
    for stem in images.keys() - labels.keys():
        wanted = label_files.name(stem)
        findings.append(Finding(images[stem][0], "missing labels", wanted, "no such file"))
    for stem in labels.keys() - images.keys() if listed is None else ():
        wanted = image_files.name(stem)
        findings.append(Finding(labels[stem][0], "labels without image", wanted, "no such file"))
    pairs = [
        Pair(f"{split}/{stem}", image, label)
        for stem in sorted(images.keys() & labels.keys())
        for image, label in zip(images[stem], labels[stem], strict=False)
    ]
    return tuple(pairs), findings


def _by_stem(root: Path, meant: _Files, role: str) -> tuple[dict[str, list[str]], list[Finding]]:
    """List a folder's files by stem, as paths relative to root, with findings for all others."""
    files: dict[str, list[str]] = {}
    findings = []
    list_folder = list_tree if meant.nested else list_files
    paths = [
        (folder, path.relative_to(root / folder), path)
        for folder in find_folders(root, meant.folder)
        for path in list_folder(root / folder)
    ]
    for folder, inner, path in paths:
        if (stem := meant.key_of(normalize("NFC", inner.with_suffix("").as_posix()))) is None:
            continue
        relative = f"{folder}/{inner}"
        name = os.fsencode(relative).decode(errors="backslashreplace")
        if name != relative:
            findings.append(Finding(name, "name not in UTF-8", "a name in UTF-8", "other bytes"))
        elif path.is_file() and path.suffix.lower() in readable_suffixes():
            files.setdefault(stem, []).append(name)
        else:
            expected = f"only files that hold {role}, by a suffix such as .png or .jpg"
            found = f"suffix {path.suffix or '(none)'}"
            if not path.is_file():  # a FIFO, say, is never opened: that would wait for ever
                found = "a folder" if path.is_dir() else "what is no file"
            findings.append(Finding(name, f"not {role}", expected, found))
    findings += [
        Finding(name, "duplicate key", f"one file {meant.name(stem)}", f"{names[0]} too")
        for stem, names in files.items()
        for name in names[1:]
    ]
    return files, findings


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the suffixes of files that are opened as images."""
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in suffixes.items() if kind in FORMATS)
