"""CamVid in SegNet's layout, as a generated twin."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_layouts import make_camvid as write_camvid
from PIL import Image

from pipeline.datasets.camvid import Config as CamVidConfig
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.index import Index, read_image, read_labels
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset


def test_the_twin_is_read_as_it_was_written(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    index = prepare_dataset(dataset, "abc", tmp_path / "pixels")
    assert (index.name, index.kind) == ("camvid", "camvid")
    assert index.class_names[3] == "Road"
    assert index.palette[3] == (128, 64, 128)
    assert index.num_classes == index.most_classes == 11
    assert {split: len(samples) for split, samples in index.splits.items()} == {
        "train": 3,
        "val": 3,
    }
    for sample in (sample for samples in index.splits.values() for sample in samples):
        ids = np.asarray(Image.open(Path(dataset.root) / sample.labels))
        labels = read_labels(index, sample)
        assert np.array_equal(labels[ids != 11], ids[ids != 11])
        assert (labels[ids == 11] == 255).all()
        image = np.asarray(Image.open(Path(dataset.root) / sample.image))
        assert np.array_equal(read_image(index, sample), image)
        assert (sample.height, sample.width) == (24, 32)


def test_keys_are_split_and_stem_in_order(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_camvid(), "abc", tmp_path / "pixels")
    keys = [sample.key for sample in index.splits["train"]]
    assert keys == [f"train/0001TP_{number:06d}" for number in range(3)]


def test_a_test_split_is_read_where_there_is_one(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid(splits=("train", "val", "test"))
    assert len(prepare_dataset(dataset, "abc", tmp_path / "pixels").splits["test"]) == 3


def test_pixels_stay_an_empty_folder(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    prepare_dataset(make_camvid(), "abc", tmp_path / "pixels")
    assert list((tmp_path / "pixels").iterdir()) == []


def test_most_classes_counts_training_images_only(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    for number, path in enumerate(sorted((Path(dataset.root) / "trainannot").iterdir())):
        ids = np.full((24, 32), 11, np.uint8)
        ids[0, : number + 2] = range(number + 2)
        Image.fromarray(ids).save(path)
    assert prepare_dataset(dataset, "abc", tmp_path / "pixels").most_classes == 4


def test_progress_reaches_the_number_of_samples(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    reports: list[tuple[int, int]] = []
    prepare_dataset(
        make_camvid(), "abc", tmp_path / "pixels", lambda done, total: reports.append((done, total))
    )
    assert reports == [(done, 6) for done in range(7)]


def test_files_of_file_browsers_are_passed_over(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    for name in (".DS_Store", "Thumbs.db", "._0001TP_000000.png"):
        (Path(dataset.root) / "train" / name).write_bytes(b"x")
    index = prepare_dataset(dataset, "abc", tmp_path / "pixels")
    assert len(index.splits["train"]) == 3


def test_a_moved_root_gives_the_same_samples(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    before = prepare_dataset(dataset, "abc", tmp_path / "pixels")
    moved = shutil.move(dataset.root, tmp_path / "elsewhere")
    after = prepare_dataset(
        dataset.model_copy(update={"root": str(moved)}), "abc", tmp_path / "pixels"
    )
    assert after.splits == before.splits


GROUPS = {(64, 128, 64): 9, (0, 0, 192): 4, (128, 0, 192): 3, (64, 192, 0): 1, (0, 0, 0): 255}
"""Animal -> Pedestrian, Sidewalk, lane markings -> Road, Wall -> Building, Void."""


@pytest.mark.parametrize("layout", ["original", "sorted"])
def test_32_colours_become_11_classes(
    layout: str, prepare: Callable[..., Index], tmp_path: Path
) -> None:
    section = write_camvid(tmp_path, layout=layout)
    index = prepare(section)
    twin = prepare(write_camvid(tmp_path / "segnet"))
    assert index.class_names == twin.class_names
    assert index.palette == twin.palette
    assert [sample.key for sample in index.splits["train"]] == [
        f"train/0001TP_{number:06d}" for number in range(3)
    ]
    assert len(index.splits["test"]) == 1
    sample = index.splits["val"][0]
    assert sample.labels.endswith("0006R0_000000_L.png")
    size = (sample.height, sample.width)
    colours = np.resize(np.array([*GROUPS], np.uint8), (*size, 3))
    Image.fromarray(colours).save(tmp_path / sample.labels)
    assert np.array_equal(read_labels(index, sample), np.resize([*GROUPS.values()], size))


def test_colours_that_are_in_no_table_are_void_and_counted(
    prepare: Callable[..., Index], tmp_path: Path
) -> None:
    section = write_camvid(tmp_path, layout="original")
    path = tmp_path / "LabeledApproved_full/0006R0_000001_L.png"
    colours = np.asarray(Image.open(path)).copy()
    colours[:2, :5] = (1, 2, 3)
    Image.fromarray(colours).save(path)
    notices: list[str] = []
    index = prepare(section, notice=notices.append)
    (notice,) = notices
    assert notice.startswith("val: 10 of 6144 px are void because their colours are not in the ")
    assert notice.endswith("; most in LabeledApproved_full/0006R0_000001_L.png")
    assert (read_labels(index, index.splits["val"][1])[:2, :5] == 255).all()


def test_the_original_without_its_labels_says_where_they_belong(
    prepare: Callable[..., Index], tmp_path: Path
) -> None:
    section = write_camvid(tmp_path, layout="original")
    shutil.rmtree(tmp_path / "LabeledApproved_full")
    with pytest.raises(DatasetError, match=r"LabeledApproved_full: missing folder"):
        prepare(section)


def test_the_original_needs_split_files(prepare: Callable[..., Index], tmp_path: Path) -> None:
    section = write_camvid(tmp_path, layout="original")
    (tmp_path / "val.txt").unlink()
    with pytest.raises(
        DatasetError,
        match=r"val\.txt: missing split file(.|\n)*put SegNet's \{train,val,test\}\.txt",
    ):
        prepare(section)


def test_a_changed_split_file_of_the_original_shows(tmp_path: Path) -> None:
    dataset = CamVidConfig.model_validate(write_camvid(tmp_path, layout="original"))
    before = fingerprint_dataset(dataset)["fingerprint"]
    (tmp_path / "val.txt").write_text("0006R0_000000\n")
    assert fingerprint_dataset(dataset)["fingerprint"] != before
