"""COCO-Stuff 164K in its official folders: 171 of 182 ids."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_layouts import make_coco_stuff
from PIL import Image

from pipeline.datasets.errors import DatasetError
from pipeline.datasets.index import Index, read_labels

Prepare = Callable[..., Index]
UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)


def test_171_of_182_ids_are_classes(prepare: Prepare, tmp_path: Path) -> None:
    index = prepare(make_coco_stuff(tmp_path))
    assert (index.num_classes, index.class_names[0], index.class_names[170]) == (
        171,
        "person",
        "wood",
    )
    assert set(range(182)) - {*index.classes.label_ids} == {*UNUSED}
    for sample in index.splits["train"]:
        ids = np.asarray(Image.open(tmp_path / sample.labels)).astype(int)
        below = np.searchsorted(UNUSED, ids)
        assert np.array_equal(read_labels(index, sample), np.where(ids == 255, 255, ids - below))


def test_what_a_converter_wrote_beside_the_labels_is_passed_over(
    prepare: Prepare, tmp_path: Path
) -> None:
    section = make_coco_stuff(tmp_path)
    assert (tmp_path / "annotations/val2017/000000000139_labelTrainIds.png").exists()
    index = prepare(section)
    assert [sample.key for sample in index.splits["val"]] == [
        f"val/{number:012d}" for number in (139, 140)
    ]
    assert index.splits["val"][0].labels == "annotations/val2017/000000000139.png"


def test_train_ids_are_told(prepare: Prepare, tmp_path: Path) -> None:
    section = make_coco_stuff(tmp_path, counts={"train": 12, "val": 2})
    for path in tmp_path.glob("annotations/*/*_labelTrainIds.png"):
        shutil.copy(path, str(path).replace("_labelTrainIds", ""))
    with pytest.raises(DatasetError, match=r"all labels: train ids, it seems: .*stuffthingmaps"):
        prepare(section)


def test_ids_of_the_10k_version_are_told(prepare: Prepare, tmp_path: Path) -> None:
    section = make_coco_stuff(tmp_path)
    for path in tmp_path.glob("annotations/*/*.png"):
        ids = np.asarray(Image.open(path)).copy()
        ids[0, 0] = 181
        Image.fromarray(ids + np.uint8(1)).save(path)
    with pytest.raises(DatasetError, match=r"all labels: ids of COCO-Stuff 10k or of labels\.txt"):
        prepare(section)
