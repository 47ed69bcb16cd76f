"""Files become RGB or ids as they are meant, or say what they hold instead."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from pipeline.datasets.decoding import decode_image, decode_labels
from pipeline.datasets.errors import PixelError


def png(bits: int, row: bytes, colour_type: int = 0, palette: bytes = b"", depth: int = 0) -> bytes:
    """A PNG of one row of `bits` a pixel (and `depth` a channel), which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", len(row) * 8 // bits, 1, depth or bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(b"\0" + row))]
    kept = (chunk(name, content) for name, content in chunks if content)
    return b"\x89PNG\r\n\x1a\n" + b"".join(kept) + chunk(b"IEND", b"")


def test_images_of_every_8_bit_mode_become_rgb(tmp_path: Path) -> None:
    rgb = np.zeros((4, 5, 3), np.uint8)
    rgb[:, :2] = (10, 200, 30)
    for mode in ("RGB", "RGBA", "P", "L", "1"):
        path = tmp_path / f"{mode}.png"
        image = Image.fromarray(rgb).convert(mode, palette=Image.Palette.ADAPTIVE)
        if mode == "P":
            image.save(path, transparency=bytes(range(256)))
        else:
            image.save(path)
        read = decode_image(path)
        assert (read.shape, read.dtype) == ((4, 5, 3), np.uint8)
        if mode in ("RGB", "RGBA", "P"):
            assert np.abs(read.astype(int) - rgb).max() <= 4


def test_colours_of_16_bits_lose_their_lower_byte(tmp_path: Path) -> None:
    content = png(48, bytes([10, 255, 20, 255, 30, 255]), colour_type=2, depth=16)
    assert decode_image(io.BytesIO(content)).tolist() == [[[10, 20, 30]]]


def test_cmyk_is_converted_and_alpha_is_dropped(tmp_path: Path) -> None:
    rgb = np.full((8, 8, 3), (10, 200, 30), np.uint8)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(decode_image(tmp_path / "a.jpg").astype(int) - rgb).max() <= 3
    alpha = np.dstack([rgb, np.zeros((8, 8), np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png"), rgb)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGB", r"found colours \(Pillow mode RGB\)\. .*`labels: colours`"),
        ("RGBA", r"found colours \(Pillow mode RGBA\)"),
        ("LA", r"found an alpha channel \(Pillow mode LA\)\. Save it without alpha"),
        ("I;16", r"found more than 8 bits a pixel \(Pillow mode I;16\)\. .*_instanceIds\.png"),
    ],
)
def test_labels_without_ids_say_what_they_are(mode: str, message: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        decode_labels(tmp_path / "a.png")


def test_colours_are_decoded_to_ids(tmp_path: Path) -> None:
    colours = {(0, 0, 0): 255, (255, 255, 255): 7, (1, 0, 0): 0, (0, 0, 1): 3}
    random = np.random.default_rng(0)
    rgb = random.choice(np.array([*colours, (0, 1, 0), (1, 0, 1)], np.uint8), (20, 30))
    Image.fromarray(rgb).save(tmp_path / "a.png")
    ids = decode_labels(tmp_path / "a.png", tuple(colours.items()))
    expected = [[colours.get(tuple(map(int, pixel)), 254) for pixel in row] for row in rgb]
    assert ids.dtype == np.uint8
    assert ids.tolist() == expected


def test_sixteen_bit_images_are_refused_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"8 bits a channel; found more \(Pillow mode I;16\)"):
        decode_image(tmp_path / "a.png")


def test_label_files_hold_ids_whether_grey_or_palette(tmp_path: Path) -> None:
    ids = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids)
    palette.putpalette([value % 256 for value in range(255, 255 + 3 * 256)])
    palette.save(tmp_path / "palette.png")
    with Image.open(tmp_path / "palette.png") as file:
        assert file.mode == "P"
    assert np.array_equal(decode_labels(tmp_path / "grey.png"), ids)
    assert np.array_equal(decode_labels(tmp_path / "palette.png"), ids)
    Image.fromarray(ids > 4).save(tmp_path / "one_bit.png")
    assert np.array_equal(decode_labels(tmp_path / "one_bit.png"), (ids > 4).astype(np.uint8))


@pytest.mark.parametrize(
    "content",
    [png(2, b"\x1b"), png(4, b"\x01\x01"), b"P5 2 1 15 \0\1", b"P2 2 1 15 0 1 "],
    ids=["png 2", "png 4", "pgm 15", "plain pgm 15"],
)
def test_grey_ids_that_pillow_would_scale_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="Save it with 8 bits a pixel"):
        decode_labels(io.BytesIO(content))


@pytest.mark.parametrize(
    "content",
    [png(8, b"\0\1"), png(4, b"\x01", 3, bytes(6)), b"P5 2 1 255 \0\1", b"P2 2 1 255 0 1 "],
    ids=["png 8", "palette 4", "pgm 255", "plain pgm 255"],
)
def test_ids_that_pillow_leaves_alone_are_read(content: bytes) -> None:
    assert decode_labels(io.BytesIO(content)).tolist() == [[0, 1]]


def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "b.png", exif=exif)
    turned = np.rot90(rgb, -1)
    assert np.array_equal(decode_image(tmp_path / "a.png"), turned)
    assert np.array_equal(decode_labels(tmp_path / "b.png"), turned[..., 0])


def test_an_image_too_large_for_pillow_is_to_be_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(PixelError, match=r"900 pixels.*Cut the image into tiles"):
        decode_image(tmp_path / "large.png")


@pytest.mark.parametrize("colours", [(), (((0, 0, 0), 0),)])
def test_labels_as_jpeg_are_refused(colours: tuple, tmp_path: Path) -> None:
    """It makes other ids of those at borders, all of them in the table."""
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(PixelError, match=r"format that keeps every value.*found JPEG"):
        decode_labels(tmp_path / "a.png", colours)


def test_exif_that_cannot_be_read_turns_nothing(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0")
    assert np.array_equal(decode_image(tmp_path / "a.png"), rgb)


@pytest.mark.parametrize("decode", [decode_image, decode_labels])
def test_a_damaged_png_is_never_decoded(decode: Callable[..., np.ndarray]) -> None:
    """Pillow raises at the first load alone, and shows what it has at the second."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)).save(file, "PNG")
    whole = file.getvalue()
    for position in range(60, len(whole) - 20, 97):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        with pytest.raises((OSError, SyntaxError)):
            decode(io.BytesIO(damaged))
