"""The index is read as it was written, and labels are read as classes."""

import hashlib
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from pipeline.datasets.camvid import Config as CamVidConfig
from pipeline.datasets.errors import DatasetError, PixelError
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.index import Index, decode_image, decode_labels, read_image, read_labels
from pipeline.datasets.prepare import prepare_dataset


def test_round_trip_and_stable_bytes(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_folder(), "abc", tmp_path / "pixels")
    path = tmp_path / "new" / "index.json"
    index.write(path)
    first = path.read_bytes()
    assert Index.read(path) == index
    Index.read(path).write(path)
    assert path.read_bytes() == first
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["index.json", "root.txt"]


def test_a_dataset_that_moves_leaves_the_index_as_it_was(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    folder = make_folder()
    index = prepare_dataset(folder, "abc", tmp_path / "pixels")
    index.write(tmp_path / "one/index.json")
    moved = Path(shutil.move(folder.root, tmp_path / "elsewhere"))
    there = prepare_dataset(folder.model_copy(update={"root": str(moved)}), "abc", tmp_path / "p")
    there.write(tmp_path / "other/index.json")
    one, other = ((tmp_path / name / "index.json").read_bytes() for name in ("one", "other"))
    assert one == other
    read = Index.read(tmp_path / "other/index.json")
    assert read_image(read, read.splits["train"][0]).ndim == 3


def test_a_relative_root_moves_with_the_project(
    make_folder: Callable[..., FolderConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    project = tmp_path / "project"
    shutil.copytree(folder.root, project / "data")
    monkeypatch.chdir(project)
    index = prepare_dataset(folder.model_copy(update={"root": "data"}), "abc", tmp_path / "p")
    index.write(Path("artifacts/index.json"))
    monkeypatch.chdir(tmp_path)
    project.rename(tmp_path / "moved")
    read = Index.read(tmp_path / "moved/artifacts/index.json")
    assert read_image(read, read.splits["train"][0]).ndim == 3


def test_pixels_beside_the_index_are_found_from_any_folder(
    make_folder: Callable[..., FolderConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = replace(prepare_dataset(make_folder(), "abc", tmp_path / "p"), root="here/pixels")
    monkeypatch.chdir(tmp_path)
    index.write(Path("here/index.json"))
    monkeypatch.chdir("/")
    assert Path(Index.read(tmp_path / "here/index.json").root) == tmp_path / "here/pixels"


def test_a_root_whose_name_is_not_utf_8_is_found_again(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_folder(tmp_path / "\udcff"), "abc", tmp_path / "p")
    index.write(tmp_path / "index.json")
    assert Index.read(tmp_path / "index.json") == index


def test_an_index_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text('{"version": 0}')
    with pytest.raises(
        ValueError, match=r"index\.json: expected an index of version 1; found version 0"
    ):
        Index.read(path)


def test_labels_changed_after_prepare_are_refused(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_camvid(), "abc", tmp_path / "pixels")
    sample = index.splits["train"][0]
    path = Path(index.root) / sample.labels
    Image.fromarray(np.full((24, 32), 99, np.uint8)).save(path)
    with pytest.raises(DatasetError, match=r"99 \(768 px\)\nThe file changed: run prepare again"):
        read_labels(index, sample)


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


def test_paths_are_relative_to_the_root_as_given(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_camvid()
    monkeypatch.chdir(tmp_path)
    dataset = CamVidConfig(kind="camvid", name="camvid", root="camvid")
    index = prepare_dataset(dataset, "abc", tmp_path / "pixels")
    sample = index.splits["train"][0]
    assert index.root == "camvid"
    assert (sample.image, sample.labels) == (
        "train/0001TP_000000.png",
        "trainannot/0001TP_000000.png",
    )
    assert read_image(index, sample).shape == (24, 32, 3)


def png(bits: int, row: bytes, colour_type: int = 0, palette: bytes = b"", depth: int = 0) -> bytes:
    """A PNG of one row of `bits` a pixel (and `depth` a channel), which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", len(row) * 8 // bits, 1, depth or bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(b"\0" + row))]
    kept = (chunk(name, content) for name, content in chunks if content)
    return b"\x89PNG\r\n\x1a\n" + b"".join(kept) + chunk(b"IEND", b"")


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


def test_an_index_without_hashes_is_read(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    index, path = prepare_dataset(make_folder(), "abc", tmp_path / "p"), tmp_path / "index.json"
    index.write(path)
    raw = json.loads(path.read_text())
    for sample in (sample for samples in raw["splits"].values() for sample in samples):
        del sample["image_sha256"], sample["labels_sha256"]
    path.write_text(json.dumps(raw))
    assert Index.read(path).splits["val"][0].labels_sha256 == ""
    assert Index.read(path).fingerprint == index.fingerprint


def test_a_table_of_ids_is_written_and_hashed_as_before_there_were_colours(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    """So that no index, and nothing that depends on it, is stale without a reason."""
    index, path = prepare_dataset(make_folder(), "", tmp_path / "p"), tmp_path / "index.json"
    index.write(path)
    classes = json.loads(path.read_text())["classes"]
    assert {*classes} == {"names", "palette", "label_ids", "void_ids"}
    files = {
        sample.key: (sample.image_sha256, sample.labels_sha256)
        for samples in index.splits.values()
        for sample in samples
    }
    hashed = json.dumps({"classes": classes, "files": files}, sort_keys=True).encode()
    assert index.fingerprint == hashlib.sha256(hashed).hexdigest()


def test_an_image_too_large_for_pillow_is_to_be_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(PixelError, match=r"900 pixels.*Cut the image into tiles"):
        decode_image(tmp_path / "large.png")
