"""A fingerprint follows the content of a dataset, not where it lies."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.datasets.camvid import Config as CamVidConfig
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.prepare import fingerprint_dataset

Change = Callable[[Path], object]
LABELS = "trainannot/0001TP_000000.png"

CHANGES: dict[str, Change] = {
    "size": lambda root: (root / LABELS).write_bytes((root / LABELS).read_bytes() + b"x"),
    "content": lambda root: (root / LABELS).write_bytes((root / LABELS).read_bytes()[:-1] + b"x"),
    "removed": lambda root: (root / LABELS).unlink(),
    "added": lambda root: shutil.copy(root / LABELS, root / "trainannot/added.png"),
    "renamed": lambda root: (root / LABELS).rename(root / "trainannot/renamed.png"),
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


def test_a_moved_touched_or_littered_dataset_is_the_same(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    dataset = make_camvid()
    before = fingerprint_dataset(dataset)
    moved = Path(shutil.move(dataset.root, tmp_path / "elsewhere"))
    os.utime(moved / LABELS, (1, 1))
    (moved / "train" / ".DS_Store").write_bytes(b"x")
    (moved / "readme.txt").write_text("not one of the folders")
    dataset = CamVidConfig(kind="camvid", name="other", root=str(moved))
    assert fingerprint_dataset(dataset) == before


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


def test_only_an_even_sample_is_looked_into(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    for number in range(101):
        (folder / f"{number:03d}").write_bytes(b"a")

    def seen(number: int) -> bool:
        before = fingerprint_files(tmp_path, ["train"], sampled_files=5)
        (folder / f"{number:03d}").write_bytes(b"b")
        after = fingerprint_files(tmp_path, ["train"], sampled_files=5)
        return before != after

    assert [number for number in range(101) if seen(number)] == [0, 25, 50, 75, 100]
