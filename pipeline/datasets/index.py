"""The index: what `prepare` writes down about a dataset, and the only way its pixels are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.base import validate
from pipeline.datasets.decoding import RGB, decode_image, decode_labels
from pipeline.datasets.errors import DatasetError, Finding, PixelError
from store.files import reading, replace_file, write_json
from store.schema import VOID

INDEX_VERSION = 1
ROOT = "root.txt"
UNLABELLED = "unlabelled"
"""The split of images without labels: extracted beside the training split, never measured."""
CHANGED = "The file changed: run prepare again."


@dataclass(frozen=True)
class ClassTable:
    """The classes of a dataset and the ids that stand for them in its label files.

    Where label files hold colours, `colours` has the id of each of them.
    """

    names: tuple[str, ...]
    palette: tuple[RGB, ...]
    label_ids: tuple[int, ...]
    void_ids: tuple[int, ...]
    colours: tuple[tuple[RGB, int], ...] = ()

    def known_ids(self) -> NDArray[np.bool_]:
        """Return which ids may occur in a label file: bool [256]."""
        known = np.zeros(256, np.bool_)
        known[[*self.label_ids, *self.void_ids]] = True
        return known

    def class_of_id(self) -> NDArray[np.uint8]:
        """Return the class (0..K-1, or VOID) of each id of a label file: uint8 [256]."""
        classes = np.full(256, VOID, np.uint8)
        classes[list(self.label_ids)] = np.arange(len(self.label_ids))
        return classes

    def to_dict(self) -> dict[str, Any]:  # JSON
        """Return the fields; without colours the same as before there were any."""
        return {name: value for name, value in asdict(self).items() if value or name != "colours"}


@dataclass(frozen=True)
class Sample:
    """One image with its labels; paths are relative to the index's root.

    Where `labels` is empty every pixel is void. The hashes are of the files' bytes; older indexes
    hold none.
    """

    key: str
    image: str
    labels: str
    height: int
    width: int
    image_sha256: str = ""
    labels_sha256: str = ""


@dataclass(frozen=True)
class Index:
    """A checked dataset: classes, and the samples of every split in the order of their keys.

    `fingerprint` is of what the files hold, or of what determines it where they are generated.
    """

    name: str
    kind: str
    root: str
    fingerprint: str
    classes: ClassTable
    splits: Mapping[str, tuple[Sample, ...]]
    most_classes: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every class, by its number."""
        return self.classes.names

    @property
    def palette(self) -> tuple[RGB, ...]:
        """Return RGB 0..255 of every class, by its number."""
        return self.classes.palette

    @property
    def num_classes(self) -> int:
        """Return K, void not counted."""
        return len(self.classes.names)

    @property
    def labelled_splits(self) -> tuple[str, ...]:
        """Return the names of the splits that a network can be measured on."""
        return tuple(split for split in self.splits if split != UNLABELLED)

    @property
    def extracted(self) -> tuple[Sample, ...]:
        """Return the samples that a store's records are views of, in their order."""
        return (*self.splits["train"], *self.splits.get(UNLABELLED, ()))

    def write(self, path: Path) -> None:
        """Write as JSON, the same bytes for the same index; readers see the old file or the new.

        The root goes to a file of its own beside it, so that a dataset that moves changes nothing
        that depends on the index. It is written relative to the index's folder where it lies below
        that, or is relative itself: then both move together.
        """
        fields = asdict(self)
        given, folder = Path(fields.pop("root")), path.parent.resolve()
        root = given.resolve()
        if not given.is_absolute() or root.is_relative_to(folder):
            root = Path(os.path.relpath(root, folder))
        replace_file(path.with_name(ROOT), os.fsencode(root) + b"\n")
        fields["classes"] = self.classes.to_dict()
        write_json({"version": INDEX_VERSION, **fields}, path)

    @classmethod
    def read(cls, path: Path) -> Index:
        """Read what `write` wrote.

        Raises:
            FileNotFoundError: there is no such file, or no root beside it.
            ValueError: the file is no index, or of another version of this program.
        """
        again = "run `dvc repro -f -s prepare`"
        with reading(path, f"an index of version {INDEX_VERSION}", again):
            raw = json.loads(path.read_bytes())
            if raw["version"] != INDEX_VERSION:
                raise ValueError(f"version {raw['version']}")
            index = validate(cls, {**raw, "root": ""})
        with reading(path.with_name(ROOT), "the folder of the dataset", again):
            root = path.parent / os.fsdecode(path.with_name(ROOT).read_bytes().strip())
        return replace(index, root=str(root))


def read_image(index: Index, sample: Sample) -> NDArray[np.uint8]:
    """Read a sample's image: RGB 0..255, uint8 [height, width, 3].

    Raises:
        DatasetError: the file is not what it was when `prepare` opened it.
    """
    return _read(index, sample, sample.image, decode_image)


def read_labels(index: Index, sample: Sample) -> NDArray[np.uint8]:
    """Read a sample's labels: classes 0..K-1 and void = 255, uint8 [height, width].

    Raises:
        DatasetError: the file is not what it was when `prepare` opened it.
    """
    if not sample.labels:
        return np.full((sample.height, sample.width), VOID, np.uint8)
    decode = partial(decode_labels, colours=index.classes.colours)
    ids = _read(index, sample, sample.labels, decode)
    if unknown := unknown_ids(count_ids(ids), index.classes):
        finding = Finding(sample.labels, "label id outside the table", "ids of the table", unknown)
        raise DatasetError(index.root, [finding], CHANGED)
    return index.classes.class_of_id()[ids]


def _read(
    index: Index, sample: Sample, name: str, decode: Callable[[Path], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Decode one of a sample's files, which must have the size that the index has."""
    try:
        pixels = decode(Path(index.root) / name)
    except PixelError as error:
        finding = error.finding(name)
        raise DatasetError(index.root, [finding], CHANGED) from None
    if pixels.shape[:2] != (sample.height, sample.width):
        expected = f"{sample.width}x{sample.height}"
        finding = Finding(name, "size mismatch", expected, write_size(pixels))
        raise DatasetError(index.root, [finding], CHANGED)
    return pixels


def count_ids(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of each id: int64 [256]."""
    return np.bincount(ids.ravel(), minlength=256)


def unknown_ids(counts: NDArray[np.int64], classes: ClassTable) -> str:
    """Name the counted ids that are not in the table with their pixels, or the empty string."""
    unknown = np.flatnonzero((counts > 0) & ~classes.known_ids())
    return ", ".join(f"{value} ({counts[value]} px)" for value in unknown)


def write_size(pixels: NDArray[np.uint8]) -> str:
    """Write the size of an array [H, W, ...] as text: `WxH`."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def write_ids(ids: NDArray[np.int64]) -> str:
    """Write ascending ids as short text: `0-11, 255`."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
