"""Opens every file of a dataset once: sizes, truncation, label ids."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from dask.bag import from_sequence
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from PIL.ExifTags import Base

from pipeline.datasets.errors import Finding, PixelError
from pipeline.datasets.index import (
    FORMATS,
    UNLABELLED,
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

FILES_PER_TASK = 8
MEASURED = ("val", "test")

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


@dataclass(frozen=True)
class Checked:
    """What opening a dataset's files showed; usable where `findings` is empty.

    Attributes:
        splits: the samples of each split in which nothing is wrong.
        most_classes: the most classes in the labels of one training image.
        findings: what is wrong.
        id_counts: of each split, the pixels of each id in the label files, int64 [256].
        id_images: of each split, the label files that hold each id, int64 [256].
        sizes: of each split, height and width of every image that can be read, int64 [n, 2].
    """

    splits: dict[str, tuple[Sample, ...]]
    most_classes: int
    findings: tuple[Finding, ...]
    id_counts: dict[str, NDArray[np.int64]]
    id_images: dict[str, NDArray[np.int64]]
    sizes: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class _CheckedPair:
    sample: Sample | None
    num_classes: int
    findings: tuple[Finding, ...]
    ids: dict[int, int]  # of the label file -> pixels
    size: tuple[int, ...]  # empty where the image cannot be read


def check_listing(root: Path, listing: Listing, progress: Progress | None = None) -> Checked:
    """Open every pair of a listing in threads of dask (decoders release the interpreter lock)."""
    pairs = [pair for pairs in listing.splits.values() for pair in pairs]
    progress = progress or (lambda done, total: None)
    progress(0, len(pairs))
    done, lock = count(1), Lock()

    def check(pair: Pair) -> _CheckedPair:
        result = _check_pair(root, listing.classes, pair)
        with lock:
            progress(next(done), len(pairs))
        return result

    bag = from_sequence(pairs, partition_size=FILES_PER_TASK)  # type: ignore[no-untyped-call]
    results = iter(bag.map(check).compute(scheduler="threads", num_workers=os.cpu_count()))
    checked = {split: list(islice(results, len(of))) for split, of in listing.splits.items()}
    counts = {split: _count_ids(pairs) for split, pairs in checked.items()}
    id_counts = {split: pixels for split, (pixels, _) in counts.items()}
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
        findings=(*findings, *_unlabelled_splits(checked), *_leaks(checked)),
        id_counts=id_counts,
        id_images={split: files for split, (_, files) in counts.items()},
        sizes={
            split: np.array([pair.size for pair in pairs if pair.size], np.int64).reshape(-1, 2)
            for split, pairs in checked.items()
        },
    )


def _labelled_counts(id_counts: dict[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Add up the splits that must have labels: a test split may be published without."""
    none = np.zeros(256, np.int64)
    return sum((id_counts.get(split, none) for split in REQUIRED_SPLITS), none)


def _count_ids(pairs: Sequence[_CheckedPair]) -> NDArray[np.int64]:
    """Count the pixels of each id, and the label files that hold it, int64 [2, 256]."""
    counts = np.zeros((2, 256), np.int64)
    for pair in pairs:
        for value, pixels in pair.ids.items():
            counts[:, value] += pixels, 1
    return counts


def _leaks(checked: Mapping[str, Sequence[_CheckedPair]]) -> list[Finding]:
    """Find images without labels, of which students learn, that students are also measured on."""

    def samples(split: str) -> list[Sample]:
        return [pair.sample for pair in checked.get(split, ()) if pair.sample]

    measured = {one.image_sha256: one.image for split in MEASURED for one in samples(split)}
    return [
        Finding(one.image, "image of a measured split", "no image of val or test", f"{same} again")
        for one in samples(UNLABELLED)
        if (same := measured.get(one.image_sha256))
    ]


def _unlabelled_splits(checked: dict[str, list[_CheckedPair]]) -> list[Finding]:
    return [
        Finding(split, "split without labels", "a labelled pixel in some image", "only void")
        for split, pairs in checked.items()
        if split in REQUIRED_SPLITS
        and pairs
        and all(pair.sample and not pair.num_classes for pair in pairs)
    ]


def _check_pair(root: Path, classes: ClassTable, pair: Pair) -> _CheckedPair:
    image_sha256, image, findings = _read(root, pair.image, decode_image)
    labels_sha256, ids = "", None
    if pair.labels:
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
    size, sample = image.shape[:2] if image is not None else (), None
    if size and not findings:
        height, width = size
        hashes = (image_sha256, labels_sha256)
        sample = Sample(pair.key, pair.image, pair.labels, height, width, *hashes)
    pixels = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return _CheckedPair(sample, num_classes, tuple(findings), pixels, size)


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
    except UnidentifiedImageError:  # its own text is an address in memory
        found = f"cannot identify image file as one of {', '.join(FORMATS)}"
        return "", None, [Finding(name, "unreadable", "a whole image file", found)]
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        reason = str(error) or type(error).__name__
        return "", None, [Finding(name, "unreadable", "a whole image file", reason)]


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
