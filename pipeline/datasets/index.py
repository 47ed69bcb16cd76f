"""The index: what `prepare` writes down about a dataset, and the only way its pixels are read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.ImageOps import exif_transpose

from pipeline.config.base import validate
from pipeline.datasets.errors import DatasetError, Finding, PixelError
from store.files import reading, replace_file, write_json
from store.schema import VOID

INDEX_VERSION = 1
ROOT = "root.txt"
UNLABELLED = "unlabelled"
"""The split of images without labels: extracted beside the training split, never measured."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""What Pillow may take a file for: it knows some seventy, and runs another program for some."""
UNKNOWN_COLOUR = 254
"""The id of a pixel of labels in colours whose colour stands for no class and not for void."""

RGB = tuple[int, int, int]


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
    """Read a sample's image: RGB 0..255, uint8 [height, width, 3]."""
    return decode_image(Path(index.root) / sample.image)


def read_labels(index: Index, sample: Sample) -> NDArray[np.uint8]:
    """Read a sample's labels: classes 0..K-1 and void = 255, uint8 [height, width].

    Raises:
        DatasetError: the file holds an id outside the class table, so it changed since `prepare`.
    """
    if not sample.labels:
        return np.full((sample.height, sample.width), VOID, np.uint8)
    ids = decode_labels(Path(index.root) / sample.labels, index.classes.colours)
    if unknown := unknown_ids(count_ids(ids), index.classes):
        finding = Finding(sample.labels, "label id outside the table", "ids of the table", unknown)
        raise DatasetError(index.root, [finding], "The file changed: run prepare again.")
    return index.classes.class_of_id()[ids]


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open a file of one of FORMATS, whatever it is named.

    Raises:
        PixelError: more pixels than Pillow takes for an image.
    """
    try:
        return Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PixelError("fewer pixels", str(error), "Cut the image into tiles.") from None


def decode_image(source: Path | BinaryIO) -> NDArray[np.uint8]:
    """Decode any 8-bit image file to RGB, turned as its EXIF orientation says, uint8 [H, W, 3].

    Raises:
        PixelError: more than 8 bits a channel, which Pillow would clip rather than convert.
    """
    with open_image(source) as file:
        if file.mode.startswith(("I", "F")):
            found = f"more (Pillow mode {file.mode})"
            raise PixelError("8 bits a channel", found, "Convert the image to 8 bits a channel.")
        # Pillow warns about palettes with transparency unless they pass through RGBA.
        whole = file.convert("RGBA") if "transparency" in file.info else file
        return np.asarray(exif_transpose(whole).convert("RGB"))


def decode_labels(
    source: Path | BinaryIO, colours: tuple[tuple[RGB, int], ...] = ()
) -> NDArray[np.uint8]:
    """Decode a label file to ids, turned as an image is, uint8 [H, W].

    Args:
        source: a file of greyscale or palette ids, or of any colours.
        colours: the id of each colour; without them the file holds ids.

    Raises:
        PixelError: no ids (colours, alpha, more than 8 bits a pixel), or no certain ones: grey that
            Pillow scales to 0..255.
    """
    if colours:
        return _ids_by_colour(colours)[_packed(decode_image(source))]
    with open_image(source) as file:
        if file.mode not in ("L", "P", "1"):
            raise PixelError("ids, as grey or as a palette", *_other_labels(file.mode))
        if _scaled(file):
            # Whether 1 of 15 is id 1 or id 17 depends on the program that wrote it.
            found = "fewer bits, whose ids are not certain"
            raise PixelError("grey of 8 bits, or a palette", found, "Save it with 8 bits a pixel.")
        return np.asarray(exif_transpose(file)).astype(np.uint8)


def _other_labels(mode: str) -> tuple[str, str]:
    """Say what a label file without ids holds, and what to do."""
    if mode.startswith(("I", "F")):
        hint = (
            "Give the files of classes; Cityscapes' *_instanceIds.png, say, tell instances apart."
        )
        return f"more than 8 bits a pixel (Pillow mode {mode})", hint
    if mode in ("LA", "La", "PA"):
        return f"an alpha channel (Pillow mode {mode})", "Save it without alpha."
    hint = (
        "Give the files of ids as they come (Cityscapes: *_labelIds.png); "
        "kind `folder` reads colours by `labels: colours` in its classes.yaml."
    )
    return f"colours (Pillow mode {mode})", hint


@cache
def _ids_by_colour(colours: tuple[tuple[RGB, int], ...]) -> NDArray[np.uint8]:
    """Return the id of all 2**24 colours: one look-up a pixel."""
    ids = np.full(1 << 24, UNKNOWN_COLOUR, np.uint8)
    ids[_packed(np.array([rgb for rgb, _ in colours]))] = [label_id for _, label_id in colours]
    return ids


def _packed(rgb: NDArray[Any]) -> NDArray[np.int32]:  # any integers
    """Put red, green and blue, integers [..., 3], into one number: int32 [...]."""
    packed: NDArray[np.int32] = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    return packed


def _scaled(file: Image.Image) -> bool:
    """Whether decoding will spread fewer than 256 greys over 0..255."""
    assert isinstance(file, ImageFile)
    codec, _, _, arguments = file.tile[0]
    raw_mode, *rest = [arguments] if isinstance(arguments, str) else arguments or [""]
    if codec.startswith("ppm"):
        return rest != [255]
    return re.match(r"L;\d", raw_mode) is not None


def count_ids(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of each id: int64 [256]."""
    return np.bincount(ids.ravel(), minlength=256)


def unknown_ids(counts: NDArray[np.int64], classes: ClassTable) -> str:
    """Name the counted ids that are not in the table with their pixels, or the empty string."""
    unknown = np.flatnonzero((counts > 0) & ~classes.known_ids())
    return ", ".join(f"{value} ({counts[value]} px)" for value in unknown)


def write_ids(ids: NDArray[np.int64]) -> str:
    """Write ascending ids as short text: `0-11, 255`."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
