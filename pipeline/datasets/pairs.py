"""Opens an image and its labels: what they show, and what is wrong with them."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from pipeline.datasets.decoding import FORMATS, RGB, open_image, orientation, to_ids, to_rgb
from pipeline.datasets.errors import Finding, PixelError
from pipeline.datasets.index import (
    ClassTable,
    Sample,
    count_ids,
    unknown_ids,
    write_ids,
    write_size,
)
from pipeline.datasets.listing import Pair
from store.schema import VOID

END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True)
class CheckedPair:
    """What opening an image and its labels showed.

    Attributes:
        pair: their files.
        sample: what the index gets; None where something is wrong.
        num_classes: how many classes the labels hold.
        findings: what is wrong.
        ids: of the label file -> pixels.
        size: height and width; empty where the image cannot be read.
        turned_alone: whether EXIF turns the image otherwise than the labels.
        recoloured: whether the labels' palette gives an id the colour of another class.
    """

    pair: Pair
    sample: Sample | None
    num_classes: int
    findings: tuple[Finding, ...]
    ids: dict[int, int]
    size: tuple[int, ...]
    turned_alone: bool
    recoloured: bool


@dataclass(frozen=True)
class _File:
    """What one file holds: the hash of its bytes, its pixels, and what is wrong with it."""

    sha256: str = ""
    pixels: NDArray[np.uint8] | None = None
    orientation: int = 1
    palette: tuple[RGB, ...] = ()
    findings: tuple[Finding, ...] = ()


def check_pair(root: Path, classes: ClassTable, pair: Pair) -> CheckedPair:
    """Open both files of a pair, or the image alone where there are no labels."""
    image, labels = _read(root, pair.image, to_rgb), _File()
    if pair.labels:
        labels = _read(root, pair.labels, partial(to_ids, colours=classes.colours))
    findings = [*image.findings, *labels.findings]
    ids = np.empty((0, 0), np.uint8) if labels.pixels is None else labels.pixels
    counts = count_ids(ids)
    if unknown := unknown_ids(counts, classes):
        expected = f"one of {write_ids(np.flatnonzero(classes.known_ids()))}"
        findings.append(Finding(pair.labels, "label id outside the table", expected, unknown))
    num_classes = int((classes.class_of_id()[counts > 0] != VOID).sum())
    findings += _compare(pair, image, labels)
    size, sample = () if image.pixels is None else image.pixels.shape[:2], None
    if size and not findings:
        height, width = size
        hashes = (image.sha256, labels.sha256)
        sample = Sample(pair.key, pair.image, pair.labels, height, width, *hashes)
    return CheckedPair(
        pair,
        sample,
        num_classes,
        tuple(findings),
        ids={int(value): int(counts[value]) for value in np.flatnonzero(counts)},
        size=size,
        turned_alone=labels.pixels is not None and image.orientation != labels.orientation,
        recoloured=_is_recoloured(labels.palette, counts, classes),
    )


def _compare(pair: Pair, image: _File, labels: _File) -> Iterator[Finding]:
    """Find what shows in an image and its labels together."""
    if image.pixels is None or labels.pixels is None:
        return
    if image.pixels.shape[:2] != labels.pixels.shape:
        turned = image.orientation
        how = "" if turned == 1 else f", turned by its EXIF orientation {turned}"
        expected = f"{write_size(image.pixels)} as {pair.image}{how}"
        yield Finding(pair.labels, "size mismatch", expected, write_size(labels.pixels))
    if image.sha256 == labels.sha256:
        same = f"the bytes of {pair.image}"
        yield Finding(pair.labels, "labels that are the image", "labels of it", same)


def _read(root: Path, name: str, decode: Callable[[Image.Image], NDArray[np.uint8]]) -> _File:
    try:
        content = (root / name).read_bytes()
        if not content:
            raise ValueError("an empty file (0 bytes)")
        with open_image(io.BytesIO(content)) as file:
            has_end = _has_end(file, content)
            file.verify()  # checksums, which decoding alone does not look at
        with open_image(io.BytesIO(content)) as file:
            pixels, palette, turned = decode(file), _palette(file), orientation(file)
        if not has_end:
            raise ValueError("a JPEG without its end, as of a download that stopped")
        return _File(hashlib.sha256(content).hexdigest(), pixels, turned, palette)
    except PixelError as error:
        return _File(findings=(error.finding(name),))
    except UnidentifiedImageError:  # its own text is an address in memory
        reason = f"cannot identify image file as one of {', '.join(FORMATS)}"
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        reason = str(error) or type(error).__name__
    return _File(findings=(Finding(name, "unreadable", "a whole image file", reason),))


def _has_end(file: Image.Image, content: bytes) -> bool:
    """Whether a JPEG ends: where zeros stand in place of the rest, they decode to grey."""
    assert isinstance(file, ImageFile)
    assert file.fp is not None
    return file.format != "JPEG" or content.find(END_OF_JPEG, file.fp.tell()) >= 0


def _palette(file: Image.Image) -> tuple[RGB, ...]:
    values = iter((file.mode == "P" and file.getpalette("RGB")) or [])
    return tuple(zip(values, values, values, strict=True))


def _is_recoloured(palette: Sequence[RGB], counts: NDArray[np.int64], classes: ClassTable) -> bool:
    """Whether ids that occur have, in a file's own palette, the colour of another class."""
    if classes.colours:  # ids are of colours, not of places in the palette
        return False
    times = Counter(classes.palette)
    ids = zip(classes.palette, classes.label_ids, strict=True)
    id_of = {rgb: label_id for rgb, label_id in ids if times[rgb] == 1}
    present = np.flatnonzero(counts[: len(palette)]).tolist()
    return any(id_of.get(palette[value], value) != value for value in present)
