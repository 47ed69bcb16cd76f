"""Opens every file of a dataset once: sizes, truncation, label ids."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ExifTags import Base

from pipeline.datasets.errors import Finding, PixelError
from pipeline.datasets.index import (
    ClassTable,
    Sample,
    count_ids,
    decode_image,
    decode_labels,
    open_image,
    unknown_ids,
    write_ids,
)
from pipeline.datasets.listing import REQUIRED_SPLITS, Listing, Pair
from store.schema import VOID

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


@dataclass(frozen=True)
class Checked:
    """What opening a dataset's files showed; usable where `findings` is empty.

    `id_counts` has the pixels of each id in the label files of a split: int64 [256].
    """

    splits: dict[str, tuple[Sample, ...]]
    most_classes: int
    findings: tuple[Finding, ...]
    id_counts: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class _CheckedPair:
    sample: Sample | None
    num_classes: int
    findings: tuple[Finding, ...]


def check_listing(root: Path, listing: Listing, progress: Progress | None = None) -> Checked:
    """Open every pair of a listing in a pool of threads (decoders release the interpreter lock)."""
    check = partial(_check_pair, root, listing.classes)
    total = sum(len(pairs) for pairs in listing.splits.values())
    done = 0
    if progress is not None:
        progress(done, total)
    checked: dict[str, list[_CheckedPair]] = {split: [] for split in listing.splits}
    id_counts = {split: np.zeros(256, np.int64) for split in listing.splits}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for split, pairs in listing.splits.items():
            for pair, counts in pool.map(check, pairs):
                checked[split].append(pair)
                id_counts[split] += counts
                done += 1
                if progress is not None:
                    progress(done, total)
    findings = [
        finding for pairs in checked.values() for pair in pairs for finding in pair.findings
    ]
    if listing.judge is not None:
        findings += listing.judge(_labelled_counts(id_counts))
    return Checked(
        splits={
            split: tuple(pair.sample for pair in pairs if pair.sample)
            for split, pairs in checked.items()
        },
        most_classes=max((pair.num_classes for pair in checked.get("train", [])), default=0),
        findings=(*findings, *_unlabelled_splits(checked)),
        id_counts=id_counts,
    )


def _labelled_counts(id_counts: dict[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Add up the splits that must have labels: a test split may be published without."""
    none = np.zeros(256, np.int64)
    return sum((id_counts.get(split, none) for split in REQUIRED_SPLITS), none)


def _unlabelled_splits(checked: dict[str, list[_CheckedPair]]) -> list[Finding]:
    return [
        Finding(split, "split without labels", "a labelled pixel in some image", "only void")
        for split, pairs in checked.items()
        if split in REQUIRED_SPLITS
        and pairs
        and all(pair.sample and not pair.num_classes for pair in pairs)
    ]


def _check_pair(
    root: Path, classes: ClassTable, pair: Pair
) -> tuple[_CheckedPair, NDArray[np.int64]]:
    """Check one image with its labels, and count its label ids."""
    image_sha256, image, findings = _read(root, pair.image, decode_image)
    decode = partial(decode_labels, colours=classes.colours)
    labels_sha256, ids, label_findings = _read(root, pair.labels, decode)
    findings += label_findings
    counts = count_ids(np.empty(0, np.uint8) if ids is None else ids)
    if unknown := unknown_ids(counts, classes):
        expected = f"one of {write_ids(np.flatnonzero(classes.known_ids()))}"
        findings.append(Finding(pair.labels, "label id outside the table", expected, unknown))
    num_classes = int((classes.class_of_id()[counts > 0] != VOID).sum())
    if image is not None and ids is not None and image.shape[:2] != ids.shape:
        turned = _orientation(root / pair.image)
        how = "" if turned == 1 else f", turned by its EXIF orientation {turned}"
        expected = f"{_size(image)} as {pair.image}{how}"
        findings.append(Finding(pair.labels, "size mismatch", expected, _size(ids)))
    if findings or image is None:
        return _CheckedPair(None, num_classes, tuple(findings)), counts
    height, width = image.shape[:2]
    hashes = (image_sha256, labels_sha256)
    sample = Sample(pair.key, pair.image, pair.labels, height, width, *hashes)
    return _CheckedPair(sample, num_classes, ()), counts


def _orientation(path: Path) -> int:
    with open_image(path) as file:
        return int(file.getexif().get(Base.Orientation, 1))


def _read(
    root: Path, name: str, decode: Callable[[Any], NDArray[np.uint8]]
) -> tuple[str, NDArray[np.uint8] | None, list[Finding]]:
    """Read one file: the hash of its bytes, what it shows, and what is wrong with it."""
    try:
        content = (root / name).read_bytes()
        if not content:
            raise ValueError("an empty file (0 bytes)")
        with open_image(io.BytesIO(content)) as file:
            file.verify()  # checksums, which decoding alone does not look at
        return hashlib.sha256(content).hexdigest(), decode(io.BytesIO(content)), []
    except PixelError as error:
        finding = Finding(name, "pixels of another kind", error.expected, error.found, error.hint)
        return "", None, [finding]
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        reason = str(error) or type(error).__name__
        return "", None, [Finding(name, "unreadable", "a whole image file", reason)]


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
