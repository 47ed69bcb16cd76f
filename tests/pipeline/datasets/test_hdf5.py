"""HDF5 files are unpacked into image files: NYUv2's layout, numbers, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pipeline.config.params import load_params
from pipeline.datasets import hdf5
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.hdf5 import Config
from pipeline.datasets.index import read_image, read_labels
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset

COUNT, HEIGHT, WIDTH = 7, 12, 20
CLASSES = """\
classes:
  - {id: [1, 300, 894], name: wall, colour: [10, 20, 30]}
  - {id: 2, name: floor, colour: [40, 50, 60]}
void: [0]
"""
NYU = {"file": "nyu.mat", "layout": "NCWH", "first_number": 1}
CLASS_OF_ID = {0: 255, 1: 0, 300: 0, 894: 0, 2: 1}

random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
IDS = random.choice(np.array([0, 1, 300, 894, 2], np.uint16), (COUNT, HEIGHT, WIDTH))


def write_nyu(path: Path) -> None:
    """The labelled file of NYUv2 as MATLAB 7.3 writes it: axes reversed, cells by reference."""
    with h5py.File(path, "w", userblock_size=512) as file:
        chunked = {"compression": "gzip", "compression_opts": 3}
        file.create_dataset("images", data=IMAGES.transpose(0, 3, 2, 1), **chunked)
        file.create_dataset("labels", data=IDS.transpose(0, 2, 1), **chunked)
        file.create_dataset("depths", data=np.zeros((COUNT, WIDTH, HEIGHT), "f4"), **chunked)
        names = file.create_dataset("#refs#/b", data=np.frombuffer(b"wall", np.uint8))
        file["names"] = np.array([[names.ref] * 894], h5py.ref_dtype)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Config]:
    """A root with NYUv2's file, classes.yaml and the numbers of val; sources may be changed."""

    def build(**train: Any) -> Config:
        root = tmp_path / "nyu"
        root.mkdir(exist_ok=True)
        if not (root / "nyu.mat").exists():
            write_nyu(root / "nyu.mat")
            (root / "classes.yaml").write_text(CLASSES)
            (root / "val.txt").write_text("2\n7\n")
        splits = {
            "train": {**NYU, "numbers": "1, 3-5", **train},
            "val": {**NYU, "numbers": "val.txt"},
        }
        return Config.model_validate(
            {"kind": "hdf5", "name": "nyu", "root": str(root), "splits": splits}
        )

    return build


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_nyus_file_is_unpacked_with_its_axes_turned_and_its_ids_mapped(
    make: Callable[..., Config], tmp_path: Path
) -> None:
    index = prepare_dataset(make(), "", tmp_path / "pixels")
    keys = {split: [sample.key for sample in samples] for split, samples in index.splits.items()}
    assert keys == {
        "train": ["train/000001", "train/000003", "train/000004", "train/000005"],
        "val": ["val/000002", "val/000007"],
    }
    assert (index.class_names, index.root) == (("wall", "floor"), str(tmp_path / "pixels"))
    for samples in index.splits.values():
        for sample in samples:
            position = int(sample.key[-6:]) - 1
            assert np.array_equal(read_image(index, sample), IMAGES[position])
            classes = np.vectorize(CLASS_OF_ID.get)(IDS[position])
            assert np.array_equal(read_labels(index, sample), classes)


def test_plain_arrays_of_h5py_are_read_whole_without_numbers(
    make: Callable[..., Config], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["some/pixels"], file["some/ids"] = IMAGES, IDS.astype(np.int32)
    plain = {"file": str(tmp_path / "plain.h5"), "images": "some/pixels", "labels": "some/ids"}
    dataset = make(**plain, numbers=None, first_number=0, layout="NHWC")
    index = prepare_dataset(dataset, "", tmp_path / "pixels")
    assert [sample.key for sample in index.splits["train"]] == [f"train/00000{n}" for n in range(7)]
    for position, sample in enumerate(index.splits["train"]):
        assert np.array_equal(read_image(index, sample), IMAGES[position])


def test_both_fingerprints_follow_the_pixels_and_not_the_file(
    make: Callable[..., Config], tmp_path: Path
) -> None:
    dataset = make()
    cheap, index = fingerprint_dataset(dataset), prepare_dataset(dataset, "", tmp_path / "a")
    with h5py.File(Path(dataset.root) / "nyu.mat", "a") as file:
        file["more"] = 1
    touched = fingerprint_dataset(dataset)
    assert touched != cheap
    assert prepare_dataset(dataset, "", tmp_path / "b").fingerprint == index.fingerprint
    with h5py.File(Path(dataset.root) / "nyu.mat", "a") as file:
        file["images"][2, 0, 0, 0] ^= 1
    assert fingerprint_dataset(dataset) != touched
    assert prepare_dataset(dataset, "", tmp_path / "a").fingerprint != index.fingerprint
    (Path(dataset.root) / "val.txt").write_text("2, 6")
    assert len(prepare_dataset(dataset, "", tmp_path / "a").splits["val"]) == 2
    assert not (tmp_path / "a/val/images/000007.ppm").exists()


def test_a_killed_unpacking_goes_on_and_ends_as_one_that_was_not(
    make: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make()
    hdf5.list_samples(dataset, tmp_path / "whole")
    saved, save = [], Image.Image.save

    def save_five(image: Image.Image, path: Path, format: str) -> None:
        if len(saved) == 5:
            raise KeyboardInterrupt
        saved.append(path)
        save(image, path, format)

    monkeypatch.setattr(Image.Image, "save", save_five)
    with pytest.raises(KeyboardInterrupt):
        hdf5.list_samples(dataset, tmp_path / "killed")
    monkeypatch.undo()
    kept = tmp_path / "killed/train/images/000001.ppm"
    before = kept.stat().st_ino
    hdf5.list_samples(dataset, tmp_path / "killed")
    assert kept.stat().st_ino == before
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_another_file_left_unfinished_is_not_taken_over(
    make: Callable[..., Config], tmp_path: Path
) -> None:
    pixels = tmp_path / "pixels"
    listing = hdf5.list_samples(make(), pixels)
    (pixels / "unfinished.json").write_text(json.dumps("of another file"))
    (pixels / listing.splits["val"][0].image).write_bytes(b"of another file")
    (pixels / "old.ppm").write_bytes(b"")
    hdf5.list_samples(make(), pixels)
    assert (pixels / listing.splits["val"][0].image).read_bytes().startswith(b"P6")
    assert not (pixels / "old.ppm").exists()


def edit(path: Path, name: str, **new: Any) -> None:
    """Put another dataset in the place of one."""
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, **new)


def link_elsewhere(path: Path) -> None:
    shutil.copy(path, path.with_name("other.mat"))
    with h5py.File(path, "a") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink("other.mat", "images")


def map_elsewhere(path: Path) -> None:
    shutil.copy(path, path.with_name("other.mat"))
    shape = (COUNT, 3, WIDTH, HEIGHT)
    layout = h5py.VirtualLayout(shape, "u1")
    layout[:] = h5py.VirtualSource(path.with_name("other.mat"), "images", shape)
    with h5py.File(path, "a") as file:
        del file["images"]
        file.create_virtual_dataset("images", layout)


def put_group(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["images"]
        file["images/x"] = 1


IMAGES_SHAPE = (COUNT, 3, WIDTH, HEIGHT)
NOT_WHOLE = "values are absent, which HDF5 reads as zeros"
# what is done to the file -> what the message says
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (Path.unlink, "no such file"),
    "no HDF5": (lambda path: path.write_bytes(b"x" * 999), "file signature not found"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-999]), "truncated file"),
    "a link": (link_elsewhere, "no images, or a link in its place"),
    "a mapping": (map_elsewhere, "images: its values lie in other files"),
    "raw files": (
        lambda path: edit(
            path,
            "images",
            shape=IMAGES_SHAPE,
            dtype="u1",
            external=[("raw", 0, h5py.h5f.UNLIMITED)],
        ),
        "images: its values lie in other files",
    ),
    "no values": (lambda path: edit(path, "images", shape=IMAGES_SHAPE, dtype="u1"), NOT_WHOLE),
    "no chunks": (
        lambda path: edit(path, "images", shape=IMAGES_SHAPE, dtype="u1", chunks=True),
        NOT_WHOLE,
    ),
    "a group": (put_group, "images is no dataset"),
    "another dtype": (
        lambda path: edit(path, "images", data=np.zeros(IMAGES_SHAPE, "f4")),
        f"images: expected NCWH, uint8; found float32 {IMAGES_SHAPE}",
    ),
    "other axes": (
        lambda path: edit(path, "images", data=IMAGES),
        f"images: expected NCWH, uint8; found uint8 {IMAGES.shape}",
    ),
    "fewer labels": (
        lambda path: edit(path, "labels", data=IDS[:2].transpose(0, 2, 1)),
        "7 images and 2 labels",
    ),
    "other sizes": (
        lambda path: edit(path, "labels", data=IDS),
        "size mismatch",
    ),
    "unknown ids": (
        lambda path: edit(path, "labels", data=np.full((COUNT, WIDTH, HEIGHT), -1, np.int32)),
        "number 3: label id outside the table: expected ids of classes.yaml; found -1 (240 px)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_named(
    name: str, make: Callable[..., Config], tmp_path: Path
) -> None:
    dataset = make()
    breaks, message = WRONG[name]
    breaks(Path(dataset.root) / "nyu.mat")
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(dataset, "", tmp_path / "pixels")
    assert message in str(caught.value)
    assert len(set(caught.value.findings)) == len(caught.value.findings)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ("1-8", "1-8: expected 1-7"),
        ("0", "0: expected 1-7"),
        ("1-99999999999999", "expected 1-7"),
        ("1, 1-2", "the same one twice"),
        ("5-3", "no number"),
        ("absent.txt", "no such file"),
        ("classes.yaml", "expected numbers and ranges such as 1-795, 801"),
    ],
)
def test_numbers_that_are_none_are_named(
    numbers: str, message: str, make: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=f"train: numbers {numbers}: .*{message}"):
        prepare_dataset(make(numbers=numbers), "", tmp_path / "pixels")


def test_more_than_255_classes_are_refused_with_their_number(
    make: Callable[..., Config], tmp_path: Path
) -> None:
    dataset = make()
    lines = [f"  - {{id: {n}, name: c{n}, colour: [0, 0, 0]}}" for n in range(894)]
    (Path(dataset.root) / "classes.yaml").write_text("\n".join(["classes:", *lines, "void: []"]))
    with pytest.raises(DatasetError, match=r"classes\.yaml: classes: .*at most 255\D.*894"):
        prepare_dataset(dataset, "", tmp_path / "pixels")


def test_an_id_of_two_classes_is_refused(make: Callable[..., Config], tmp_path: Path) -> None:
    dataset = make()
    (Path(dataset.root) / "classes.yaml").write_text(CLASSES.replace("id: 2,", "id: [2, 300],"))
    with pytest.raises(DatasetError, match=r"id 300: expected one meaning"):
        prepare_dataset(dataset, "", tmp_path / "pixels")


def test_a_filter_of_elsewhere_is_refused(
    make: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "FILTERS", {h5py.h5z.FILTER_SHUFFLE})
    with pytest.raises(DatasetError, match="images: filter 1, which does not come with h5py"):
        prepare_dataset(make(), "", tmp_path / "pixels")


def test_chunks_that_take_much_memory_are_refused(
    make: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "MAX_CHUNK_BYTES", 100)
    with pytest.raises(DatasetError, match=r"images: chunks of \d+ bytes, at most 100"):
        prepare_dataset(make(), "", tmp_path / "pixels")


def test_images_without_labels_lie_beside_the_root(
    make: Callable[..., Config], tmp_path: Path
) -> None:
    dataset = make().model_copy(update={"unlabelled": "more"})
    (Path(dataset.root) / "more").mkdir()
    Image.fromarray(IMAGES[0]).save(Path(dataset.root) / "more/one.png")
    index = prepare_dataset(dataset, "", tmp_path / "pixels")
    assert np.array_equal(read_image(index, index.splits["unlabelled"][0]), IMAGES[0])


def test_a_section_of_params_names_it(make: Callable[..., Config], tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    whole = YAML(typ="safe").load(Path(__file__).parents[3] / "profiles/tiny.yaml")
    whole["dataset"] = make().model_dump(mode="json", exclude_none=True)
    YAML().dump(whole, tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml").dataset == make()
