"""A fingerprint follows the content of a dataset, not where it lies."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.datasets import dataset_module
from pipeline.datasets.camvid import Config as CamVidConfig
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset
from pipeline.datasets.scenes.dataset import Config as ScenesConfig

Change = Callable[[Path], object]
LABELS = "trainannot/0001TP_000000.png"

CHANGES: dict[str, Change] = {
    "size": lambda root: (root / LABELS).write_bytes((root / LABELS).read_bytes() + b"x"),
    "content": lambda root: (root / LABELS).write_bytes((root / LABELS).read_bytes()[:-1] + b"x"),
    "removed": lambda root: (root / LABELS).unlink(),
    "added": lambda root: shutil.copy(root / LABELS, root / "trainannot/added.png"),
    "renamed": lambda root: (root / LABELS).rename(root / "trainannot/renamed.png"),
    "fifo": lambda root: os.mkfifo(root / "trainannot/pipe.png"),
    "not UTF-8": lambda root: (root / LABELS).rename(root / "trainannot/\udcff.png"),
    "link to nothing": lambda root: (root / "trainannot/link.png").symlink_to("nowhere"),
    "new split": lambda root: shutil.copytree(root / "train", root / "test"),
    "swapped": lambda root: [
        (root / name).rename(root / other)
        for name, other in (("trainannot", "x"), ("valannot", "trainannot"), ("x", "valannot"))
    ],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_shows(name: str, make_camvid: Callable[..., CamVidConfig]) -> None:
    dataset = make_camvid()
    before = fingerprint_dataset(dataset)["fingerprint"]
    assert fingerprint_dataset(dataset)["fingerprint"] == before
    CHANGES[name](Path(dataset.root))
    assert fingerprint_dataset(dataset)["fingerprint"] != before


def test_a_moved_or_littered_dataset_is_the_same(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    before = fingerprint_dataset(dataset)
    moved = Path(shutil.move(dataset.root, tmp_path / "elsewhere"))
    (moved / "train" / ".DS_Store").write_bytes(b"x")
    (moved / "readme.txt").write_text("not one of the folders")
    dataset = CamVidConfig(kind="camvid", name="other", root=str(moved))
    assert fingerprint_dataset(dataset) == before


def test_a_touched_dataset_is_read_again_and_found_the_same(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    """So that nothing that depends on the index is stale."""
    dataset = make_camvid()

    def written() -> tuple[str, bytes]:
        known = fingerprint_dataset(dataset)["fingerprint"]
        prepare_dataset(dataset, known, tmp_path / "pixels").write(tmp_path / "index.json")
        return known, (tmp_path / "index.json").read_bytes()

    seen, index = written()
    os.utime(Path(dataset.root) / LABELS, (1, 1))
    seen_again, index_again = written()
    assert seen_again != seen
    assert index_again == index


def test_the_class_table_of_a_folder_counts(make_folder: Callable[..., FolderConfig]) -> None:
    dataset = make_folder()
    before = fingerprint_dataset(dataset)["fingerprint"]
    classes = Path(dataset.root) / "classes.yaml"
    classes.write_text(classes.read_text().replace("road", "lane"))
    assert fingerprint_dataset(dataset)["fingerprint"] != before


def test_it_can_be_written_as_json(make_camvid: Callable[..., CamVidConfig]) -> None:
    fingerprint = fingerprint_dataset(make_camvid())
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint["kind"] == "camvid"
    assert fingerprint["num_files"] == 12


def test_a_missing_root_is_named_with_its_remedy(tmp_path: Path) -> None:
    dataset = CamVidConfig(kind="camvid", name="camvid", root=str(tmp_path / "nowhere"))
    with pytest.raises(
        DatasetError, match=r"nowhere: missing dataset(.|\n)*profile use NAME --root"
    ):
        fingerprint_dataset(dataset)


ARCHIVES = {
    "cityscapes": "gtFine_trainvaltest.zip",
    "voc": "VOCtrainval_11-May-2012.tar",
    "ade20k": "ADEChallengeData2016.zip",
    "coco_stuff": "stuffthingmaps_trainval2017.zip",
    "camvid": "LabeledApproved_full",
    "folder": "classes.yaml",
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_empty_folder_names_the_archives(kind: str, tmp_path: Path) -> None:
    """In the first stage, and in `prepare` where a folder was emptied in between."""
    section = {"kind": kind, "name": kind, "root": str(tmp_path)}
    dataset = dataset_module(kind).Config.model_validate(section)
    with pytest.raises(DatasetError, match=r"files of this kind(.|\n)*--root PATH") as caught:
        fingerprint_dataset(dataset)
    assert ARCHIVES[kind] in str(caught.value)
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(dataset, "", tmp_path / "pixels")
    assert ARCHIVES[kind] in str(caught.value)


def test_every_file_is_looked_at_though_size_and_time_stay(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    paths = [folder / f"{number:03d}" for number in range(101)]
    for path in paths:
        path.write_bytes(b"a")

    def seen(path: Path) -> bool:
        before, times = fingerprint_files(tmp_path, ["train"]), path.stat()
        path.write_bytes(b"b")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return fingerprint_files(tmp_path, ["train"]) != before

    assert all(map(seen, paths))


def test_every_byte_of_a_dataset_is_in_its_indexs_fingerprint(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    dataset = make_folder()
    before = prepare_dataset(dataset, "", tmp_path / "pixels")
    (sample, other), path = before.splits["val"], Path(dataset.root) / "labels/val/image.0.png"
    assert sample.labels_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    after = prepare_dataset(dataset, "", tmp_path / "pixels")
    assert after.fingerprint != before.fingerprint
    changed = replace(sample, labels_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert after.splits["val"] == (changed, other)


def test_the_fingerprint_of_generated_data_is_of_its_numbers(
    scenes: ScenesConfig, tmp_path: Path
) -> None:
    """Another zlib writes other bytes of the same pixels."""
    known = fingerprint_dataset(scenes)["fingerprint"]
    assert prepare_dataset(scenes, known, tmp_path).fingerprint == known
