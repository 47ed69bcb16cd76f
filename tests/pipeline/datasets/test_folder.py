"""A dataset described by classes.yaml."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.classes import read_classes
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.index import Index, read_labels
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset


def test_label_ids_become_classes_in_the_order_of_the_file(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    dataset = make_folder()
    index = prepare_dataset(dataset, "abc", tmp_path / "pixels")
    assert index.class_names == ("road", "person", "sky")
    assert index.palette == ((128, 64, 128), (220, 20, 60), (70, 130, 180))
    assert index.most_classes == 3
    expected = {7: 0, 24: 1, 0: 2, 255: 255, 3: 255}
    for sample in index.splits["train"]:
        ids = np.asarray(Image.open(Path(dataset.root) / sample.labels))
        mapped = np.vectorize(expected.__getitem__)(ids)
        assert np.array_equal(read_labels(index, sample), mapped)
    assert [sample.key for sample in index.splits["val"]] == ["val/image.0", "val/image.1"]


def test_an_id_255_may_be_a_class(make_folder: Callable[..., FolderConfig], tmp_path: Path) -> None:
    classes = """\
classes:
  - {id: 255, name: all, colour: [1, 2, 3]}
void: [7, 24, 0, 3]
"""
    index = prepare_dataset(make_folder(classes=classes), "abc", tmp_path / "pixels")
    sample = index.splits["train"][0]
    assert set(np.unique(read_labels(index, sample))) == {0, 255}
    assert (read_labels(index, sample)[0, 3], read_labels(index, sample)[0, 0]) == (0, 255)


GOOD = "{id: 0, name: a, colour: [1, 2, 3]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "classes.yaml: (top level): wrong entry"),
        ("classes: [", "classes.yaml: unreadable: expected a YAML file"),
        ("classes: []\nvoid: []", "classes.yaml: classes: wrong entry"),
        (f"classes: [{GOOD}]", "classes.yaml: void: wrong entry: expected Field required"),
        (f"classes: [{GOOD}]\nvoid: [256]", "classes.yaml: void.0: wrong entry"),
        (f"classes: [{GOOD}]\nvoid: 255", "found 255"),
        (f"classes: [{GOOD}]\nvoid: []\nignore: 1", "classes.yaml: ignore: wrong entry"),
        ("classes: [{id: 0, name: a}]\nvoid: []", "classes.0.colour: wrong entry"),
        ("classes: [{id: -1, name: a, colour: [1, 2, 3]}]\nvoid: []", "classes.0.id: wrong entry"),
        (
            "classes: [{id: 0, name: a, colour: [1, 2]}]\nvoid: []",
            "classes.0.colour.2: wrong entry",
        ),
        ("classes: [{id: 0, name: '', colour: [1, 2, 3]}]\nvoid: []", "classes.0.name"),
        ("classes: [{id: '0', name: a, colour: [1, 2, 3]}]\nvoid: []", "found '0'"),
        (f"classes: [{GOOD}]\nvoid: [0]", "id 0: expected one meaning; found a, void"),
        (
            f"classes: [{GOOD}, {{id: 1, name: a, colour: [1, 2, 3]}}]\nvoid: []",
            "name a: expected one meaning; found class 0, class 1",
        ),
    ],
)
def test_a_wrong_classes_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_classes(tmp_path / "classes.yaml")
    assert message in str(caught.value)
    assert "Write it like this:" in str(caught.value)


def test_the_example_in_the_message_is_right(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"classes\.yaml: unreadable") as caught:
        read_classes(tmp_path / "classes.yaml")
    ids, colours = str(caught.value).split("like this:\n")[1:]
    for example in (
        ids.removesuffix("or, where label images hold the colours themselves, "),
        colours,
    ):
        (tmp_path / "classes.yaml").write_text(example)
        assert read_classes(tmp_path / "classes.yaml").names == ("road", "sky")


def test_all_wrong_entries_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("classes: [{id: 300, nam: a, colour: [1, 2, 999]}]")
    with pytest.raises(DatasetError) as caught:
        read_classes(tmp_path / "classes.yaml")
    assert len(caught.value.findings) == 5


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_classes_file_that_is_no_file_is_named(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "classes.yaml")
    with pytest.raises(DatasetError, match=r"classes\.yaml: unreadable: .* found a folder, or"):
        read_classes(tmp_path / "classes.yaml")


COLOURS_YAML = """\
labels: colours
classes:
  - {name: road, colour: [128, 64, 128], colours: [[128, 64, 128], [128, 64, 129]]}
  - {name: sky, colour: [70, 130, 180]}
void: [[0, 0, 0]]
"""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_labels_may_be_colours(
    mode: str, make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    dataset = make_folder(classes=COLOURS_YAML)
    colours = [(128, 64, 128), (128, 64, 129), (70, 130, 180), (0, 0, 0), (9, 9, 9)]
    pixels = np.random.default_rng(0).integers(0, 5, (24, 32))
    image = Image.fromarray(np.array(colours, np.uint8)[pixels])
    if mode == "RGBA":
        image.putalpha(128)
    if mode == "P":
        image = Image.fromarray(pixels.astype(np.uint8))
        image.putpalette([channel for colour in colours for channel in colour])
    for path in Path(dataset.root).glob("labels/*/*"):
        image.save(path)
    notices: list[str] = []
    index = prepare_dataset(dataset, "", tmp_path / "pixels", notice=notices.append)
    expected = np.array([0, 0, 1, 255, 255])[pixels]
    for sample in (*index.splits["train"], *index.splits["val"]):
        assert np.array_equal(read_labels(index, sample), expected)
    unknown = 2 * int((pixels == 4).sum())
    assert [notice.split(" px")[0] for notice in notices] == [
        f"{split}: {unknown} of {2 * 24 * 32}" for split in ("train", "val")
    ]


def test_an_index_of_colours_is_read_as_it_was_written(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    dataset = make_folder(classes=COLOURS_YAML)
    for path in Path(dataset.root).glob("labels/*/*"):
        Image.new("RGB", (32, 24), (70, 130, 180)).save(path)
    index = prepare_dataset(dataset, "", tmp_path / "pixels")
    index.write(tmp_path / "index.json")
    assert Index.read(tmp_path / "index.json") == index
    assert (read_labels(index, index.splits["val"][0]) == 1).all()


def many_classes(count: int, labels: str) -> str:
    """A table of so many classes, in ids or in colours."""
    ids = [f", id: {n}" if labels == "ids" else "" for n in range(count)]
    entries = (f"{{name: c{n}, colour: [{n % 256}, {n // 256}, 1]{ids[n]}}}" for n in range(count))
    return f"labels: {labels}\nclasses: [{', '.join(entries)}]\nvoid: []"


def of_colours(*names: str, void: str) -> str:
    """A table whose classes all have the colour 1 2 3."""
    entries = ", ".join(f"{{name: {name}, colour: [1, 2, 3]}}" for name in names)
    return f"labels: colours\nclasses: [{entries}]\nvoid: {void}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (many_classes(300, "ids"), "classes: wrong entry: expected at most 255 entries; found 300"),
        (
            many_classes(300, "colours"),
            "classes: wrong entry: expected at most 254 entries; found 300",
        ),
        ("labels: colour\nclasses: []\nvoid: []", "labels: wrong entry: expected Input should be"),
        (of_colours("a", "b", void="[]"), "colour [1, 2, 3]: expected one meaning; found a, b"),
        (of_colours("a", void="[[1, 2, 3]]"), "[1, 2, 3]: expected one meaning; found a, void"),
        (of_colours("a", void="[0]"), "void.0: wrong entry"),
    ],
    ids=["300 ids", "300 colours", "labels", "one colour", "class and void", "id as void"],
)
def test_what_colours_cannot_mean_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_classes(tmp_path / "classes.yaml")
    assert message in str(caught.value)


def test_images_and_labels_may_lie_in_folders_below(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    dataset = make_folder()
    before = fingerprint_dataset(dataset)["fingerprint"]
    for role in ("images", "labels"):
        folder = Path(dataset.root) / role / "train/day.1"
        folder.mkdir()
        shutil.copy(Path(dataset.root) / role / "train/image.0.png", folder / "image.0.png")
        (folder.parent / "@eaDir").mkdir()
    index = prepare_dataset(dataset, "", tmp_path / "pixels")
    keys = [sample.key for sample in index.splits["train"]]
    assert keys == ["train/day.1/image.0", "train/image.0", "train/image.1"]
    assert fingerprint_dataset(dataset)["fingerprint"] != before
    (Path(dataset.root) / "labels/train/day.1/image.0.png").unlink()
    with pytest.raises(DatasetError, match=r"expected labels/train/day\.1/image\.0\.\*"):
        prepare_dataset(dataset, "", tmp_path / "pixels")


def test_a_letter_is_the_same_however_a_file_system_writes_it(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    dataset = make_folder()
    for role, name in (("images", "o\u0308"), ("labels", "\u00f6")):
        path = Path(dataset.root) / role / "val/image.0.png"
        path.rename(path.with_name(f"{name}.png"))
    index = prepare_dataset(dataset, "", tmp_path / "pixels")
    assert [sample.key for sample in index.splits["val"]] == ["val/image.1", "val/\u00f6"]
    assert read_labels(index, index.splits["val"][1]).shape == (24, 32)
