"""Opens every file of a dataset once: sizes, truncation, label ids."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from threading import Lock

import numpy as np
from dask.bag import from_sequence
from numpy.typing import NDArray

from pipeline.datasets.decoding import UNKNOWN_COLOUR
from pipeline.datasets.errors import Finding
from pipeline.datasets.index import UNLABELLED, Sample
from pipeline.datasets.listing import REQUIRED_SPLITS, Listing, Pair
from pipeline.datasets.pairs import CheckedPair, check_pair
from store.progress import Progress

FILES_PER_TASK = 8
MEASURED = ("val", "test")


@dataclass(frozen=True)
class Checked:
    """What opening a dataset's files showed; usable where `findings` is empty.

    Attributes:
        splits: the samples of each split in which nothing is wrong.
        most_classes: the most classes in the labels of one training image.
        findings: what is wrong.
        notices: what is not wrong in itself, but should be known.
        id_counts: of each split, the pixels of each id in the label files, int64 [256].
        id_images: of each split, the label files that hold each id, int64 [256].
        sizes: of each split, height and width of every image that can be read, int64 [n, 2].
    """

    splits: dict[str, tuple[Sample, ...]]
    most_classes: int
    findings: tuple[Finding, ...]
    notices: tuple[str, ...]
    id_counts: dict[str, NDArray[np.int64]]
    id_images: dict[str, NDArray[np.int64]]
    sizes: dict[str, NDArray[np.int64]]


def check_listing(root: Path, listing: Listing, progress: Progress | None = None) -> Checked:
    """Open every pair of a listing in threads of dask (decoders release the interpreter lock)."""
    pairs = [pair for pairs in listing.splits.values() for pair in pairs]
    progress = progress or (lambda done, total: None)
    progress(0, len(pairs))
    done, lock = count(1), Lock()

    def check(pair: Pair) -> CheckedPair:
        result = check_pair(root, listing.classes, pair)
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
        notices=tuple(_notices(checked, bool(listing.classes.colours))),
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


def _count_ids(pairs: Sequence[CheckedPair]) -> NDArray[np.int64]:
    """Count the pixels of each id, and the label files that hold it, int64 [2, 256]."""
    counts = np.zeros((2, 256), np.int64)
    for pair in pairs:
        for value, pixels in pair.ids.items():
            counts[:, value] += pixels, 1
    return counts


def _repeated(
    checked: Mapping[str, Sequence[CheckedPair]], split: str
) -> Iterator[tuple[Sample, str]]:
    """Find the images of a split that val or test hold too, each with its name there."""

    def samples(split: str) -> list[Sample]:
        return [pair.sample for pair in checked.get(split, ()) if pair.sample]

    measured = {one.image_sha256: one.image for split in MEASURED for one in samples(split)}
    for one in samples(split):
        if one.image_sha256 in measured:
            yield one, measured[one.image_sha256]


def _leaks(checked: Mapping[str, Sequence[CheckedPair]]) -> list[Finding]:
    """Find images without labels, of which students learn, that students are also measured on."""
    return [
        Finding(one.image, "image of a measured split", "no image of val or test", f"{same} again")
        for one, same in _repeated(checked, UNLABELLED)
    ]


def _notices(checked: Mapping[str, Sequence[CheckedPair]], by_colour: bool) -> Iterator[str]:
    """Say what may be meant, and what gives wrong numbers where it is not."""
    for split, pairs in checked.items():
        unknown = {pair.pair.labels: pair.ids.get(UNKNOWN_COLOUR, 0) for pair in pairs}
        if by_colour and (pixels := sum(unknown.values())):
            total = sum(sum(pair.ids.values()) for pair in pairs)
            yield (
                f"{split}: {pixels} of {total} px are void because their colours are not in the "
                f"class table; most in {max(unknown, key=unknown.__getitem__)}"
            )
        if turned := [pair.pair.image for pair in pairs if pair.turned_alone]:
            yield (
                f"{split}: {len(turned)} images are turned by an EXIF orientation that their "
                f"labels have not, such as {turned[0]}: labels must be of the turned image"
            )
        if recoloured := [pair.pair.labels for pair in pairs if pair.recoloured]:
            yield (
                f"{split}: {len(recoloured)} label files have a palette that gives ids the colours "
                f"of other classes, such as {recoloured[0]}: ids count, and a program may have "
                "changed their order"
            )
    if repeated := list(_repeated(checked, "train")):
        one, same = repeated[0]
        yield f"{len(repeated)} images of train are in val or test too, such as {one.image}: {same}"


def _unlabelled_splits(checked: dict[str, list[CheckedPair]]) -> list[Finding]:
    return [
        Finding(split, "split without labels", "a labelled pixel in some image", "only void")
        for split, pairs in checked.items()
        if split in REQUIRED_SPLITS
        and pairs
        and all(pair.sample and not pair.num_classes for pair in pairs)
    ]
