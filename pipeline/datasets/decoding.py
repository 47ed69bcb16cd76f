"""Files of images and labels, decoded: the pixels that they show, or what is wrong with them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.ImageOps import exif_transpose

from pipeline.datasets.errors import PixelError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""What Pillow may take a file for: it knows some seventy, and runs another program for some."""
UNKNOWN_COLOUR = 254
"""The id of a pixel of labels in colours whose colour stands for no class and not for void."""

RGB = tuple[int, int, int]


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
        return to_rgb(file)


def to_rgb(file: Image.Image) -> NDArray[np.uint8]:
    """Decode an opened image file, as `decode_image` does."""
    if file.mode.startswith(("I", "F")):
        found = f"more (Pillow mode {file.mode})"
        raise PixelError("8 bits a channel", found, "Convert the image to 8 bits a channel.")
    # Pillow warns about palettes with transparency unless they pass through RGBA.
    whole = file.convert("RGBA") if "transparency" in file.info else file
    return np.asarray(_turned(whole, orientation(file)).convert("RGB"))


def orientation(file: Image.Image) -> int:
    """Return the EXIF orientation of an opened file, 1..8: 1 where it has none that can be read."""
    file.load()  # as a PNG's EXIF would: damaged pixels must not pass for damaged EXIF
    try:
        return int(file.getexif().get(Base.Orientation, 1))
    except Exception:  # struct.error, SyntaxError, ...: the pixels are whole all the same
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else exif_transpose(image)


def decode_labels(
    source: Path | BinaryIO, colours: tuple[tuple[RGB, int], ...] = ()
) -> NDArray[np.uint8]:
    """Decode a label file to ids, turned as an image is, uint8 [H, W].

    Args:
        source: a file of greyscale or palette ids, or of any colours.
        colours: the id of each colour; without them the file holds ids.

    Raises:
        PixelError: no ids (colours, alpha, more than 8 bits a pixel), or no certain ones: grey that
            Pillow scales to 0..255, or JPEG, which changes values.
    """
    with open_image(source) as file:
        return to_ids(file, colours)


def to_ids(file: Image.Image, colours: tuple[tuple[RGB, int], ...] = ()) -> NDArray[np.uint8]:
    """Decode an opened label file, as `decode_labels` does."""
    if file.format in ("JPEG", "MPO"):
        hint = "Give the labels from before they became JPEG; a copy as PNG keeps its errors."
        raise PixelError("a format that keeps every value, such as PNG", "JPEG", hint)
    if colours:
        return _ids_by_colour(colours)[_packed(to_rgb(file))]
    if file.mode not in ("L", "P", "1"):
        raise PixelError("ids, as grey or as a palette", *_other_labels(file.mode))
    if _scaled(file):
        # Whether 1 of 15 is id 1 or id 17 depends on the program that wrote it.
        found = "fewer bits, whose ids are not certain"
        raise PixelError("grey of 8 bits, or a palette", found, "Save it with 8 bits a pixel.")
    return np.asarray(_turned(file, orientation(file))).astype(np.uint8)


def _other_labels(mode: str) -> tuple[str, str]:
    """Say what a label file without ids holds, and what to do."""
    if mode.startswith(("I", "F")):
        hint = (
            "Save ids of classes with 8 bits a pixel; Cityscapes' *_instanceIds.png, say, tell "
            "instances apart."
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
