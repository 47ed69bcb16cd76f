"""Cityscapes in its official folders, and what is commonly wrong with them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_layouts import make_cityscapes
from PIL import Image

from pipeline.datasets.cityscapes import Config
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.index import Index, read_labels
from pipeline.datasets.prepare import fingerprint_dataset

Prepare = Callable[..., Index]
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_ID = {label_id: train_id for train_id, label_id in enumerate(IDS)}


def replace_labels(root: Path, change: Callable[[np.ndarray], np.ndarray], kind: str) -> None:
    for path in root.glob(f"gtFine/*/*/*_gtFine_{kind}.png"):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def test_label_ids_become_train_ids(prepare: Prepare, tmp_path: Path) -> None:
    index = prepare(make_cityscapes(tmp_path))
    assert (index.num_classes, index.class_names[0], index.class_names[18]) == (
        19,
        "road",
        "bicycle",
    )
    for sample in index.splits["train"]:
        ids = np.asarray(Image.open(tmp_path / sample.labels))
        expected = np.vectorize(lambda value: TRAIN_ID.get(value, 255))(ids)
        assert len(np.unique(expected)) > 2
        assert (expected == 255).any()
        assert np.array_equal(read_labels(index, sample), expected)


def test_keys_are_split_city_sequence_and_frame(prepare: Prepare, tmp_path: Path) -> None:
    index = prepare(make_cityscapes(tmp_path))
    assert [sample.key for sample in index.splits["train"]] == [
        "train/aachen_000000_000019",
        "train/aachen_000002_000019",
        "train/bochum_000001_000019",
    ]


def test_predictions_can_be_written_back_as_label_ids(prepare: Prepare, tmp_path: Path) -> None:
    index = prepare(make_cityscapes(tmp_path))
    sample = index.splits["val"][0]
    labels, ids = read_labels(index, sample), np.asarray(Image.open(tmp_path / sample.labels))
    labelled = labels != 255
    assert np.array_equal(np.array(index.classes.label_ids)[labels[labelled]], ids[labelled])


def test_train_ids_give_the_same_labels(prepare: Prepare, tmp_path: Path) -> None:
    section = make_cityscapes(tmp_path, labels="train_ids")
    index, by_ids = prepare(section), prepare({**section, "labels": "ids"})
    for sample, other in zip(index.splits["train"], by_ids.splits["train"], strict=True):
        assert sample.labels.endswith("_gtFine_labelTrainIds.png")
        assert sample.key == other.key
        assert np.array_equal(read_labels(index, sample), read_labels(by_ids, other))


def test_a_test_split_of_void_alone_is_read(prepare: Prepare, tmp_path: Path) -> None:
    index = prepare(make_cityscapes(tmp_path))
    assert (read_labels(index, index.splits["test"][0]) == 255).all()


@pytest.mark.parametrize("with_void", [True, False])
def test_train_ids_where_ids_are_expected(
    with_void: bool, prepare: Prepare, tmp_path: Path
) -> None:
    """Without void every value is a label id as well, so only all of them together tell."""
    section = make_cityscapes(tmp_path)
    void = 255 if with_void else 0
    to_train_id = np.array([TRAIN_ID.get(value, void) for value in range(256)], np.uint8)
    replace_labels(tmp_path, lambda ids: to_train_id[ids], "labelIds")
    with pytest.raises(
        DatasetError, match=r"all labels: train ids, it seems: .*`labels: train_ids`"
    ):
        prepare(section)


def test_ids_where_train_ids_are_expected(prepare: Prepare, tmp_path: Path) -> None:
    section = make_cityscapes(tmp_path, labels="train_ids")
    for path in tmp_path.glob("gtFine/*/*/*_gtFine_labelIds.png"):
        shutil.copy(path, str(path).replace("labelIds", "labelTrainIds"))
    with pytest.raises(DatasetError, match=r"all labels: label ids, it seems: .*`labels: ids`"):
        prepare(section)


def test_missing_train_ids_say_what_writes_them(prepare: Prepare, tmp_path: Path) -> None:
    section = {**make_cityscapes(tmp_path), "labels": "train_ids"}
    with pytest.raises(DatasetError) as caught:
        prepare(section)
    assert "expected gtFine/train/*/aachen_000000_000019_gtFine_labelTrainIds.*" in str(
        caught.value
    )
    assert "csCreateTrainIdLabelImgs" in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("color", r"found colours \(Pillow mode RGB\)\. Give the files of ids .*_labelIds\.png"),
        ("instanceIds", r"found more than 8 bits a pixel .*_instanceIds\.png"),
    ],
)
def test_another_file_of_the_archive_as_labels(
    other: str, message: str, prepare: Prepare, tmp_path: Path
) -> None:
    section = make_cityscapes(tmp_path)
    for path in tmp_path.glob(f"gtFine/*/*/*_gtFine_{other}.png"):
        shutil.copy(path, str(path).replace(other, "labelIds"))
    with pytest.raises(DatasetError, match=message):
        prepare(section)


def test_hidden_folders_are_no_cities(prepare: Prepare, tmp_path: Path) -> None:
    section = make_cityscapes(tmp_path)
    for folder in ("leftImg8bit/train", "gtFine/train"):
        copy = tmp_path / folder / ".ipynb_checkpoints"
        shutil.copytree(tmp_path / folder / "aachen", copy)
    assert len(prepare(section).splits["train"]) == 3


def test_a_city_without_labels_is_found(prepare: Prepare, tmp_path: Path) -> None:
    section = make_cityscapes(tmp_path)
    shutil.rmtree(tmp_path / "gtFine/train/bochum")
    with pytest.raises(
        DatasetError, match=r"bochum_000001_000019_leftImg8bit\.png: missing labels"
    ):
        prepare(section)


def test_a_changed_label_file_in_a_city_shows(tmp_path: Path) -> None:
    dataset = Config.model_validate(make_cityscapes(tmp_path))
    before = fingerprint_dataset(dataset)["fingerprint"]
    (tmp_path / "gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png").write_bytes(b"x")
    assert fingerprint_dataset(dataset)["fingerprint"] != before
