"""One picture of a dataset: some images of every split, their labels laid over them, a legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.datasets.decoding import RGB, decode_image, decode_labels
from pipeline.datasets.index import ClassTable
from pipeline.datasets.listing import Listing, Pair
from store.files import replacing

COLUMNS = 4
TILE = (380, 285)
"""Width and height that an image is made to fit in."""
GAP, MARGIN, LINE = 12, 32, 26
INK, FAINT, PAPER = (32, 33, 36), (110, 112, 118), (255, 255, 255)
UNKNOWN_RGB = (255, 0, 255)
OPACITY = 0.62

Picked = tuple[str, NDArray[np.uint8], NDArray[np.uint8] | None]
"""A key, its image [H, W, 3], and its label file's ids [H, W], if it has labels."""


def draw_contact_sheet(
    root: Path, listing: Listing, shares: Mapping[int, float], seed: int, path: Path
) -> None:
    """Draw some images of each split, and the same with their labels, into a PNG.

    Args:
        root: of the listing's paths.
        listing: of the dataset; what cannot be read is passed over.
        shares: the share of training pixels of each id that occurs, for the legend.
        seed: of the choice of images.
        path: the picture, which appears by os.replace.
    """
    bands = [
        _draw_band(
            f"{split}: {len(pairs)} images",
            list(islice(_pick(root, pairs, listing.classes, seed), COLUMNS)),
            listing.classes,
        )
        for split, pairs in listing.splits.items()
    ]
    bands.append(draw_legend(listing.classes, shares, "value, class, share of the pixels of train"))
    height = sum(band.height for band in bands) + MARGIN * (len(bands) + 1)
    sheet = Image.new("RGB", (_inner_width() + 2 * MARGIN, height), PAPER)
    top = MARGIN
    for band in bands:
        sheet.paste(band, (MARGIN, top))
        top += band.height + MARGIN
    with replacing(path) as partial:
        sheet.save(partial, "PNG", optimize=True)


def _inner_width() -> int:
    return COLUMNS * TILE[0] + (COLUMNS - 1) * GAP


def _pick(root: Path, pairs: Sequence[Pair], classes: ClassTable, seed: int) -> Iterator[Picked]:
    """Draw samples in random order, without those whose files are no image and its labels."""
    for number in np.random.default_rng(seed).permutation(len(pairs)):
        pair = pairs[number]
        try:
            image = decode_image(root / pair.image)
            ids = None
            if pair.labels:
                ids = decode_labels(root / pair.labels, classes.colours)
        except Exception:  # whatever it is, it is a finding of the check
            continue
        if ids is None or ids.shape == image.shape[:2]:
            yield pair.key, image, ids


def _draw_band(title: str, picked: Sequence[Picked], classes: ClassTable) -> Image.Image:
    """Draw a split: its title, a row of images, and below them the same with labels."""
    rows = 1 if all(ids is None for _, _, ids in picked) else 2
    tiles = [_fit(image) for _, image, _ in picked]
    row = max((tile.height for tile in tiles), default=0) + GAP
    band = Image.new("RGB", (_inner_width(), LINE + GAP + rows * row + LINE), PAPER)
    draw = ImageDraw.Draw(band)
    draw.text((0, 0), title, INK, _font(22))
    for column, ((key, _, ids), tile) in enumerate(zip(picked, tiles, strict=True)):
        left, top = column * (TILE[0] + GAP), LINE + GAP
        band.paste(tile, (left, top))
        if ids is not None:
            band.paste(overlay(tile, ids, classes), (left, top + row))
        draw.text((left, top + rows * row - GAP // 2), _shorten(key), FAINT, _font(14))
    return band


def _fit(image: NDArray[np.uint8]) -> Image.Image:
    """Scale an image so that it fits in TILE."""
    height, width = image.shape[:2]
    scale = min(TILE[0] / width, TILE[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)


def overlay(tile: Image.Image, ids: NDArray[np.uint8], classes: ClassTable) -> Image.Image:
    """Lay the colours of labels over an image: class borders in white, void hatched.

    Args:
        tile: the image.
        ids: of its label file [H, W], resized to it.
        classes: of the ids.
    """
    small = np.asarray(Image.fromarray(ids).resize(tile.size, Image.Resampling.NEAREST))
    grey = np.asarray(tile.convert("L"), np.float32)[..., None]
    mixed = OPACITY * _colour_of_id(classes)[small] + (1 - OPACITY) * grey
    void = np.isin(small, classes.void_ids)
    mixed[void] = _hatch(tile.size)[void]
    border = np.zeros(small.shape, np.bool_)
    border[:, 1:] |= small[:, 1:] != small[:, :-1]
    border[1:] |= small[1:] != small[:-1]
    mixed[border] = 0.5 * mixed[border] + 0.5 * 255
    return Image.fromarray(mixed.round().astype(np.uint8))


def _colour_of_id(classes: ClassTable) -> NDArray[np.float32]:
    """Return RGB of each id of a label file, [256, 3]."""
    colours = np.full((256, 3), UNKNOWN_RGB, np.float32)
    colours[list(classes.label_ids)] = classes.palette
    return colours


def _hatch(size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the pattern that stands for void, [height, width, 3]."""
    rows, columns = np.indices((size[1], size[0]))
    lines = (rows + columns) % 8 < 2
    return np.repeat(np.where(lines, 150, 232)[..., None], 3, axis=2).astype(np.float32)


def draw_legend(classes: ClassTable, shares: Mapping[int, float], title: str) -> Image.Image:
    """Draw each id with its colour, its class and its share of the pixels.

    Args:
        classes: of the ids.
        shares: of each id that occurs.
        title: stands above it.
    """
    entries: list[tuple[RGB | None, int, str]] = [
        *zip(classes.palette, classes.label_ids, classes.names, strict=True),
        *((None, value, "void") for value in classes.void_ids if shares.get(value)),
        *((UNKNOWN_RGB, value, "unknown") for value in shares if not classes.known_ids()[value]),
    ]
    per_column = -(-len(entries) // COLUMNS)
    legend = Image.new("RGB", (_inner_width(), LINE * (per_column + 1) + GAP), PAPER)
    draw = ImageDraw.Draw(legend)
    draw.text((0, 0), title, FAINT, _font(16))
    for number, (colour, value, name) in enumerate(entries):
        column, row = divmod(number, per_column)
        left, top = column * (TILE[0] + GAP), LINE * (row + 1) + GAP
        patch = Image.fromarray(_hatch((32, 18)).astype(np.uint8))
        if colour is not None:
            patch.paste(colour, (0, 0, *patch.size))
        legend.paste(patch, (left, top))
        share = f"{shares[value]:.2%}" if value in shares else "absent"
        draw.text((left + 44, top - 1), f"{value}  {_shorten(name, 24)}", INK, _font(16))
        draw.text((left + TILE[0] - GAP, top - 1), share, FAINT, _font(16), anchor="ra")
    return legend


def _shorten(text: str, most: int = 44) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
