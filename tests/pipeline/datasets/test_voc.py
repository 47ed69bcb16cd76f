"""Pascal VOC 2012 in its official folders, with and without SBD's labels."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_layouts import make_voc
from PIL import Image

from pipeline.datasets.errors import DatasetError
from pipeline.datasets.index import Index, read_labels
from pipeline.datasets.prepare import fingerprint_dataset
from pipeline.datasets.voc import Config

Prepare = Callable[..., Index]
LISTS = "VOCdevkit/VOC2012/ImageSets/Segmentation"


@pytest.mark.parametrize("mode", ["P", "L"])
@pytest.mark.parametrize("base", ["VOCdevkit/VOC2012", "VOC2012", "VOCAug", "."])
def test_palette_and_grey_hold_ids_whatever_the_root(
    mode: str, base: str, prepare: Prepare, tmp_path: Path
) -> None:
    index = prepare(make_voc(tmp_path, base=base, mode=mode))
    assert (index.num_classes, index.class_names[15]) == (21, "person")
    assert [sample.key for sample in index.splits["train"]] == [
        f"train/2007_{number:06d}" for number in range(3)
    ]
    for sample in index.splits["val"]:
        with Image.open(tmp_path / sample.labels) as file:
            assert file.mode == mode
            ids = np.asarray(file)
        assert {0, 255} < {*ids.flat}
        assert np.array_equal(read_labels(index, sample), ids)


def test_augmented_train_is_all_that_val_does_not_name(prepare: Prepare, tmp_path: Path) -> None:
    section = make_voc(tmp_path, augmented=True)
    base = tmp_path / "VOCdevkit/VOC2012"
    zeros = Image.new("L", (64, 48))
    for path in (base / "SegmentationClassAug").glob("2008_*"):  # those of val
        zeros.save(path)
    index = prepare(section)
    stems = {sample.key.split("/")[1] for sample in index.splits["train"]}
    assert stems == {f"{year}_{number:06d}" for year in (2007, 2009) for number in range(3)}
    assert all("/SegmentationClassAug/" in sample.labels for sample in index.splits["train"])
    assert all("/SegmentationClass/" in sample.labels for sample in index.splits["val"])
    assert read_labels(index, index.splits["val"][0]).any()


def test_augmented_needs_no_list_of_train(prepare: Prepare, tmp_path: Path) -> None:
    section = make_voc(tmp_path, augmented=True)
    (tmp_path / LISTS / "train.txt").unlink()
    assert len(prepare(section).splits["train"]) == 6


def test_augmented_masks_without_those_of_voc_itself_are_found(
    prepare: Prepare, tmp_path: Path
) -> None:
    section = make_voc(tmp_path, augmented=True)
    folder = tmp_path / "VOCdevkit/VOC2012/SegmentationClassAug"
    (folder / "README.txt").write_text("from SBD")
    assert len(prepare(section).splits["train"]) == 6
    (folder / "2007_000001.png").unlink()
    with pytest.raises(DatasetError, match=r"expected \S*/SegmentationClassAug/2007_000001\.\*"):
        prepare(section)


def test_missing_split_files_are_named_together(prepare: Prepare, tmp_path: Path) -> None:
    section = make_voc(tmp_path)
    (tmp_path / LISTS / "train.txt").unlink()
    (tmp_path / LISTS / "val.txt").write_text("\n")
    with pytest.raises(DatasetError) as caught:
        prepare(section)
    assert f"{LISTS}/train.txt: missing split file: expected a text file, an image a line; " in str(
        caught.value
    )
    assert f"{LISTS}/val.txt: missing split file" in str(caught.value)
    assert "VOCtrainval_11-May-2012.tar" in str(caught.value)


def test_augmented_without_its_labels_says_where_they_come_from(
    prepare: Prepare, tmp_path: Path
) -> None:
    section = {**make_voc(tmp_path), "augmented": True}
    with pytest.raises(DatasetError, match=r"SegmentationClassAug: missing folder(.|\n)*SBD"):
        prepare(section)


def test_a_listed_image_that_is_missing_is_found(prepare: Prepare, tmp_path: Path) -> None:
    section = make_voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"JPEGImages/2007_000001\.\*: missing image"):
        prepare(section)


def test_a_palette_that_became_grey_is_told(prepare: Prepare, tmp_path: Path) -> None:
    section = make_voc(tmp_path)
    for path in tmp_path.glob("VOCdevkit/VOC2012/SegmentationClass/*.png"):
        Image.open(path).convert("RGB").convert("L").save(path)
    with pytest.raises(DatasetError, match=r"all labels: grey of the palette's colours: .*as they"):
        prepare(section)


def test_palettes_saved_as_colours_are_told(prepare: Prepare, tmp_path: Path) -> None:
    section = make_voc(tmp_path)
    for path in tmp_path.glob("VOCdevkit/VOC2012/SegmentationClass/*.png"):
        Image.open(path).convert("RGB").save(path)
    with pytest.raises(DatasetError, match=r"found colours .* files of ids as they come"):
        prepare(section)


def test_a_changed_split_file_shows(tmp_path: Path) -> None:
    dataset = Config.model_validate(make_voc(tmp_path))
    before = fingerprint_dataset(dataset)["fingerprint"]
    shutil.copy(tmp_path / LISTS / "val.txt", tmp_path / LISTS / "train.txt")
    assert fingerprint_dataset(dataset)["fingerprint"] != before


def test_an_image_of_two_splits_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    """Trained on and measured on, it would flatter every student."""
    section = make_voc(tmp_path)
    train, val = ((tmp_path / LISTS / f"{split}.txt") for split in ("train", "val"))
    stem = val.read_text().split()[0]
    train.write_text(f"{train.read_text()}\n{stem}\n")
    with pytest.raises(
        DatasetError, match=rf"train\.txt: image of two splits.*{stem}.*val\.txt too"
    ):
        prepare(section)
