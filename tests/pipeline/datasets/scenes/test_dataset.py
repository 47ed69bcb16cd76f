"""Scenes are the same bytes whenever, wherever and in whatever order they are drawn."""

import hashlib
from pathlib import Path

import numpy as np

from pipeline.datasets.index import read_image, read_labels
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset
from pipeline.datasets.scenes.dataset import CLASSES, draw_scene
from pipeline.datasets.scenes.dataset import Config as ScenesConfig


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_parameters_write_the_same_bytes(scenes: ScenesConfig, tmp_path: Path) -> None:
    prepare_dataset(scenes, "f", tmp_path / "a")
    prepare_dataset(scenes, "f", tmp_path / "b")
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert len(first) == len(set(first.values())) == 2 * (6 + 3)


def test_files_take_the_place_of_links_and_write_through_none(
    scenes: ScenesConfig, tmp_path: Path
) -> None:
    """As DVC leaves them: its cache's object and the file in the workspace are one."""
    prepare_dataset(scenes, "f", tmp_path / "pixels")
    expected, kept = digests(tmp_path / "pixels"), []
    for number, path in enumerate(sorted((tmp_path / "pixels").rglob("*.png"))):
        kept.append(path.rename(tmp_path / f"{number}"))
        kept[-1].write_text("kept")
        path.hardlink_to(kept[-1])
    prepare_dataset(scenes, "f", tmp_path / "pixels")
    assert digests(tmp_path / "pixels") == expected
    assert {path.read_text() for path in kept} == {"kept"}


def test_a_scene_does_not_depend_on_the_others(scenes: ScenesConfig, tmp_path: Path) -> None:
    prepare_dataset(scenes, "f", tmp_path / "all")
    fewer = scenes.model_copy(update={"num_train": 2, "num_val": 1})
    prepare_dataset(fewer, "f", tmp_path / "fewer")
    assert digests(tmp_path / "fewer").items() <= digests(tmp_path / "all").items()


def test_files_hold_what_is_drawn(scenes: ScenesConfig, tmp_path: Path) -> None:
    index = prepare_dataset(scenes, "f", tmp_path)
    assert [sample.key for sample in index.splits["val"]] == ["val/0000", "val/0001", "val/0002"]
    for split in ("val", "train"):
        for number in reversed(range(len(index.splits[split]))):
            sample = index.splits[split][number]
            image, labels = draw_scene(scenes.seed, split, number, scenes.height, scenes.width)
            assert np.array_equal(read_image(index, sample), image)
            assert np.array_equal(read_labels(index, sample), labels)


def test_seed_split_and_number_each_change_the_scene() -> None:
    scenes = [(0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1)]
    drawn = {draw_scene(*scene, 32, 64)[0].tobytes() for scene in scenes}
    assert len(drawn) == 4


def test_every_class_and_some_void_appears_in_fair_amounts() -> None:
    drawn = [draw_scene(0, "train", number, 64, 128) for number in range(40)]
    labels = np.stack([labels for _, labels in drawn])
    counts = np.bincount(labels.ravel(), minlength=256)
    assert counts[: len(CLASSES.names)].min() > 0.01 * labels.size
    assert 0 < counts[255] < 0.05 * labels.size
    assert counts[len(CLASSES.names) : 255].sum() == 0
    for rare in ("person", "pole", "car"):
        number = CLASSES.names.index(rare)
        assert (labels == number).any(axis=(1, 2)).mean() > 0.8


def test_image_and_labels_show_the_same_street() -> None:
    # Labels that were off by some pixels would not follow the rims in the image: the image changes
    # more across a rim between classes than across the same rim moved sideways.
    across, beside = [], []
    for number in range(30):
        image, labels = draw_scene(0, "val", number, 64, 128)
        step = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=-1)
        rim = labels[:, 1:] != labels[:, :-1]
        across.append(step[rim].mean())
        beside.append(max(step[np.roll(rim, shift, axis=1)].mean() for shift in (-2, 2)))
    assert np.mean(across) > 1.3 * np.mean(beside)


def test_any_size_can_be_drawn() -> None:
    for height, width in ((16, 16), (64, 24), (120, 160)):
        image, labels = draw_scene(0, "train", 0, height, width)
        assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((height, width), np.uint8)


def test_fingerprint_follows_what_is_drawn_and_nothing_else(scenes: ScenesConfig) -> None:
    def fingerprint(**changes: object) -> str:
        return str(fingerprint_dataset(scenes.model_copy(update=changes))["fingerprint"])

    same = [fingerprint(), fingerprint(name="other", root="artifacts/datasets/other")]
    changes = ({"seed": 4}, {"num_train": 7}, {"num_val": 4}, {"height": 40}, {"width": 72})
    different = [fingerprint(**change) for change in changes]
    assert len(set(same)) == 1
    assert len({*same, *different}) == 6
