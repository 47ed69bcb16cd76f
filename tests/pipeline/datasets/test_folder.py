"""A dataset described by classes.yaml."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.classes import read_classes
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.index import read_labels
from pipeline.datasets.prepare import prepare_dataset


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
        ("classes: [{id: 0, name: a, colour: [1, 2]}]\nvoid: []", "classes.0.colour: wrong entry"),
        ("classes: [{id: 0, name: '', colour: [1, 2, 3]}]\nvoid: []", "classes.0.name"),
        ("classes: [{id: '0', name: a, colour: [1, 2, 3]}]\nvoid: []", "found '0'"),
        (f"classes: [{GOOD}]\nvoid: [0]", "id 0: expected one meaning; found several"),
        (
            f"classes: [{GOOD}, {{id: 1, name: a, colour: [1, 2, 3]}}]\nvoid: []",
            "name a: expected one class; found several",
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
