"""Every kind of bad input is found, all of them in one error, and nothing is written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from PIL.ExifTags import Base

from pipeline.config.datasets import dataset_module
from pipeline.datasets.camvid import Config as CamVidConfig
from pipeline.datasets.checking import check_listing
from pipeline.datasets.errors import MOST_LISTED, DatasetError, Finding
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.prepare import prepare_dataset

Break = Callable[[Path], None]


def cut(path: Path, keep: float) -> None:
    """Keep only the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def flip_byte(path: Path, position: float) -> None:
    """Damage one byte of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 0xFF
    path.write_bytes(bytes(content))


def save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


A, B, C = (f"0001TP_00000{number}" for number in range(3))
ZEROS = np.zeros((24, 32), np.uint8)

BREAKS: dict[str, tuple[Break, str, str]] = {
    "missing labels": (
        lambda root: (root / f"trainannot/{A}.png").unlink(),
        f"train/{A}.png",
        f"missing labels: expected trainannot/{A}.*; found no such file",
    ),
    "extra labels": (
        lambda root: save(root / "valannot/extra.png", ZEROS),
        "valannot/extra.png",
        "labels without image: expected val/extra.*; found no such file",
    ),
    "size mismatch": (
        lambda root: save(root / f"trainannot/{B}.png", ZEROS.T),
        f"trainannot/{B}.png",
        f"size mismatch: expected 32x24 as train/{B}.jpg; found 24x32",
    ),
    "not an image": (
        lambda root: (root / f"train/{C}.jpg").write_bytes(b"nothing of the kind") and None,
        f"train/{C}.jpg",
        "unreadable: expected a whole image file; found cannot identify",
    ),
    "empty file": (
        lambda root: (root / f"trainannot/{C}.png").write_bytes(b"") and None,
        f"trainannot/{C}.png",
        "unreadable: expected a whole image file; found an empty file (0 bytes)",
    ),
    "truncated jpeg": (
        lambda root: cut(root / f"val/{B}.jpg", 0.6),
        f"val/{B}.jpg",
        "unreadable: expected a whole image file; found image file is truncated",
    ),
    "truncated png": (
        lambda root: cut(root / f"val/{A}.png", 0.6),
        f"val/{A}.png",
        "unreadable: expected a whole image file; found",
    ),
    "damaged png": (
        lambda root: flip_byte(root / f"valannot/{A}.png", 0.7),
        f"valannot/{A}.png",
        "unreadable: expected a whole image file; found",
    ),
    "unknown id": (
        lambda root: save(
            root / f"valannot/{B}.png", np.where(np.eye(24, 32), 12, ZEROS).astype("u1")
        ),
        f"valannot/{B}.png",
        "label id outside the table: expected one of 0-11; found 12 (24 px)",
    ),
    "colour labels": (
        lambda root: save(root / f"valannot/{C}.png", np.zeros((24, 32, 3), np.uint8)),
        f"valannot/{C}.png",
        "expected ids, as grey or as a palette; found colours (Pillow mode RGB). Give the files of",
    ),
    "duplicate key": (
        lambda root: shutil.copy(root / f"val/{C}.jpg", root / f"val/{C}.jpeg") and None,
        f"val/{C}.jpg",
        f"duplicate key: expected one file val/{C}.*; found val/{C}.jpeg too",
    ),
    "not an image suffix": (
        lambda root: (root / "train/notes.txt").write_text("x") and None,
        "train/notes.txt",
        "not image: expected only files that hold image",
    ),
    "a suffix of another format": (
        lambda root: shutil.copy(root / f"val/{A}.png", root / "val/other.eps") and None,
        "val/other.eps",
        "not image: expected only files that hold image, by a suffix such as .png or .jpg; found",
    ),
    "a fifo among files": (
        lambda root: os.mkfifo(root / "val/pipe.png"),
        "val/pipe.png",
        "found what is no file",
    ),
    "a name that is not UTF-8": (
        lambda root: os.close(os.open(bytes(root / "val/") + b"/b\xff.png", os.O_CREAT)),
        "val/b\\xff.png",
        "val/b\\xff.png: name not in UTF-8: expected a name in UTF-8; found other bytes",
    ),
    "a folder among files": (
        lambda root: (root / "val/more").mkdir(),
        "val/more",
        "found a folder",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_kind_of_bad_input_is_found(
    name: str, make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    breaks, file, message = BREAKS[name]
    breaks(Path(dataset.root))
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(dataset, "abc", tmp_path / "pixels")
    assert [finding.file for finding in caught.value.findings] == [file]
    assert message in str(caught.value)


def test_a_jpeg_whose_end_is_zeros_is_found(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    """It decodes without an error, to grey."""
    dataset = make_camvid()
    path = Path(dataset.root) / f"val/{C}.jpg"
    size = path.stat().st_size
    cut(path, 0.6)
    os.truncate(path, size)
    with pytest.raises(DatasetError, match=rf"val/{C}\.jpg: unreadable: .* without its end"):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")


def test_an_image_in_place_of_its_labels_is_found(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    shutil.copy(Path(dataset.root) / f"trainannot/{A}.png", Path(dataset.root) / f"train/{A}.png")
    expected = rf"expected labels of it; found the bytes of train/{A}\.png"
    with pytest.raises(DatasetError, match=expected):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")


def test_all_findings_come_in_one_error_and_nothing_is_written(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    root = Path(dataset.root)
    for breaks, _, _ in BREAKS.values():
        breaks(root)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(dataset, "abc", tmp_path / "pixels")
    text = str(caught.value)
    for _, file, message in BREAKS.values():
        assert f"\n  {file}: " in text
        assert message in text
    assert f"{len(BREAKS)} finding(s)" in text
    assert text.splitlines()[-1].startswith("Nothing was written.")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "pixels"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_found(
    split: str, make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    for folder in (split, f"{split}annot"):
        for path in (Path(dataset.root) / folder).iterdir():
            path.unlink()
    with pytest.raises(
        DatasetError, match=f"\n  {split}: empty split: expected at least one image"
    ):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_found(
    split: str, make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    for folder in (split, f"{split}annot"):
        shutil.rmtree(Path(dataset.root) / folder)
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(dataset, "abc", tmp_path / "pixels")
    assert {finding.file for finding in caught.value.findings} == {split, f"{split}annot"}


def test_half_a_test_split_is_found(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid(splits=("train", "val", "test"))
    shutil.rmtree(Path(dataset.root) / "testannot")
    with pytest.raises(DatasetError, match=r"testannot: missing folder"):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")


def test_a_split_of_void_alone_is_found(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    labels = sorted((Path(dataset.root) / "trainannot").iterdir())
    for path in labels:
        save(path, np.full((24, 32), 11, np.uint8))
    with pytest.raises(DatasetError, match=r"train: split without labels: .* found only void"):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")
    save(labels[0], ZEROS)  # images without labels are welcome, a split without labels is not
    assert prepare_dataset(dataset, "abc", tmp_path / "pixels").most_classes == 1


def test_findings_of_a_folder_dataset_name_its_own_ids(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    dataset = make_folder()
    save(Path(dataset.root) / "labels/train/image.0.png", np.full((24, 32), 5, np.uint8))
    with pytest.raises(DatasetError, match=r"expected one of 0, 3, 7, 24, 255; found 5 \(768 px\)"):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")


def test_no_file_is_taken_for_postscript(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would run Ghostscript on it, whatever the file is named."""

    def run(*arguments: object, **options: object) -> None:
        raise AssertionError("Ghostscript was run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    dataset = make_camvid()
    path = Path(dataset.root) / f"val/{A}.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n%%EndComments\nshowpage\n")
    with pytest.raises(DatasetError, match=f"{A}.png: unreadable: .* cannot identify image file"):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")


def test_labels_of_an_image_that_exif_turns_say_so(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    path = Path(dataset.root) / f"train/{B}.jpg"
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(path, exif=exif)
    expected = rf"expected 24x32 as train/{B}\.jpg, turned by its EXIF orientation 6; found 32x24"
    with pytest.raises(DatasetError, match=expected):
        prepare_dataset(dataset, "abc", tmp_path / "pixels")


def notices_of(dataset: CamVidConfig | FolderConfig, tmp_path: Path) -> list[str]:
    notices: list[str] = []
    prepare_dataset(dataset, "abc", tmp_path / "pixels", notice=notices.append)
    return notices


def test_nothing_is_said_of_a_dataset_in_which_nothing_is_odd(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    assert notices_of(make_camvid(), tmp_path) == []


def test_images_that_exif_turns_without_their_labels_are_told(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    """Upside down, an image has the size of its labels."""
    dataset = make_camvid()
    exif = Image.Exif()
    exif[Base.Orientation] = 3
    path = Path(dataset.root) / f"train/{A}.png"
    with Image.open(path) as image:
        image.save(path, exif=exif)
    (notice,) = notices_of(dataset, tmp_path)
    assert notice.startswith("train: 1 images are turned by an EXIF orientation that their labels")
    assert f"such as train/{A}.png" in notice
    path = Path(dataset.root) / f"trainannot/{A}.png"
    with Image.open(path) as image:
        image.save(path, exif=exif)
    assert notices_of(dataset, tmp_path) == []


def test_images_of_train_that_val_holds_too_are_told(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    root = Path(dataset.root)
    shutil.copy(root / f"val/{B}.jpg", root / f"train/{C}.jpg")
    assert notices_of(dataset, tmp_path) == [
        f"1 images of train are in val or test too, such as train/{C}.jpg: val/{B}.jpg"
    ]


def test_palettes_whose_order_a_program_changed_are_told(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    """Colours are as they were, ids are not, and all of them are in the table."""
    dataset = make_folder()
    path = Path(dataset.root) / "labels/val/image.1.png"
    road, person = (128, 64, 128), (220, 20, 60)
    labels = Image.fromarray(np.full((24, 32), 7, np.uint8))
    for at_7, at_24 in ((road, person), (person, road), ((1, 2, 3), (4, 5, 6))):
        palette = np.full((256, 3), 9, np.uint8)
        palette[7], palette[24] = at_7, at_24
        labels.putpalette(palette.tobytes())
        labels.save(path)
        notices = notices_of(dataset, tmp_path)
        assert len(notices) == (at_7 == person)
        assert all("labels/val/image.1.png: ids count" in notice for notice in notices)


def test_the_pixels_of_each_id_are_counted_by_split(
    make_folder: Callable[..., FolderConfig],
) -> None:
    dataset = make_folder()
    root = Path(dataset.root)
    save(root / "labels/val/image.1.png", np.full((24, 32), 5, np.uint8))  # in no table
    listing = dataset_module("folder").list_samples(dataset, root / "unused")
    counted = check_listing(root, listing).id_counts
    for split in ("train", "val"):
        labels = [np.asarray(Image.open(path)) for path in (root / f"labels/{split}").iterdir()]
        expected = np.bincount(np.ravel(labels), minlength=256)
        assert counted[split].dtype == np.int64
        assert np.array_equal(counted[split], expected)


def test_a_message_spells_out_some_findings_of_each_kind() -> None:
    findings = [Finding(f"{n:03d}.png", "unreadable", "a", "b") for n in range(MOST_LISTED + 7)]
    error = DatasetError("here", [*findings, Finding("x", "missing folder", "a", "b", "Do c.")])
    lines = str(error).splitlines()
    assert len(error.findings) == MOST_LISTED + 8
    assert lines[0] == f"dataset at here: {MOST_LISTED + 8} finding(s)"
    assert lines[-4:-1] == [
        f"  {findings[MOST_LISTED - 1]}",
        "  x: missing folder: expected a; found b. Do c.",
        "  unreadable: 7 more files",
    ]
