"""The index is read as it was written, and labels are read as classes."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.camvid import Config as CamVidConfig
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.index import Index, read_image, read_labels
from pipeline.datasets.prepare import prepare_dataset


def test_round_trip_and_stable_bytes(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_folder(), "abc", tmp_path / "pixels")
    path = tmp_path / "new" / "index.json"
    index.write(path)
    first = path.read_bytes()
    assert Index.read(path) == index
    Index.read(path).write(path)
    assert path.read_bytes() == first
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["index.json", "root.txt"]


def test_a_dataset_that_moves_leaves_the_index_as_it_was(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    folder = make_folder()
    index = prepare_dataset(folder, "abc", tmp_path / "pixels")
    index.write(tmp_path / "one/index.json")
    moved = Path(shutil.move(folder.root, tmp_path / "elsewhere"))
    there = prepare_dataset(folder.model_copy(update={"root": str(moved)}), "abc", tmp_path / "p")
    there.write(tmp_path / "other/index.json")
    one, other = ((tmp_path / name / "index.json").read_bytes() for name in ("one", "other"))
    assert one == other
    read = Index.read(tmp_path / "other/index.json")
    assert read_image(read, read.splits["train"][0]).ndim == 3


def test_a_relative_root_moves_with_the_project(
    make_folder: Callable[..., FolderConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    project = tmp_path / "project"
    shutil.copytree(folder.root, project / "data")
    monkeypatch.chdir(project)
    index = prepare_dataset(folder.model_copy(update={"root": "data"}), "abc", tmp_path / "p")
    index.write(Path("artifacts/index.json"))
    monkeypatch.chdir(tmp_path)
    project.rename(tmp_path / "moved")
    read = Index.read(tmp_path / "moved/artifacts/index.json")
    assert read_image(read, read.splits["train"][0]).ndim == 3


def test_pixels_beside_the_index_are_found_from_any_folder(
    make_folder: Callable[..., FolderConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = replace(prepare_dataset(make_folder(), "abc", tmp_path / "p"), root="here/pixels")
    monkeypatch.chdir(tmp_path)
    index.write(Path("here/index.json"))
    monkeypatch.chdir("/")
    assert Path(Index.read(tmp_path / "here/index.json").root) == tmp_path / "here/pixels"


def test_a_root_whose_name_is_not_utf_8_is_found_again(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_folder(tmp_path / "\udcff"), "abc", tmp_path / "p")
    index.write(tmp_path / "index.json")
    assert Index.read(tmp_path / "index.json") == index


def test_an_index_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text('{"version": 0}')
    with pytest.raises(
        ValueError, match=r"index\.json: expected an index of version 1; found version 0"
    ):
        Index.read(path)


def test_labels_changed_after_prepare_are_refused(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_camvid(), "abc", tmp_path / "pixels")
    sample = index.splits["train"][0]
    path = Path(index.root) / sample.labels
    Image.fromarray(np.full((24, 32), 99, np.uint8)).save(path)
    with pytest.raises(DatasetError, match=r"99 \(768 px\)\nThe file changed: run prepare again"):
        read_labels(index, sample)


def test_paths_are_relative_to_the_root_as_given(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_camvid()
    monkeypatch.chdir(tmp_path)
    dataset = CamVidConfig(kind="camvid", name="camvid", root="camvid")
    index = prepare_dataset(dataset, "abc", tmp_path / "pixels")
    sample = index.splits["train"][0]
    assert index.root == "camvid"
    assert (sample.image, sample.labels) == (
        "train/0001TP_000000.png",
        "trainannot/0001TP_000000.png",
    )
    assert read_image(index, sample).shape == (24, 32, 3)


def test_an_index_without_hashes_is_read(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    index, path = prepare_dataset(make_folder(), "abc", tmp_path / "p"), tmp_path / "index.json"
    index.write(path)
    raw = json.loads(path.read_text())
    for sample in (sample for samples in raw["splits"].values() for sample in samples):
        del sample["image_sha256"], sample["labels_sha256"]
    path.write_text(json.dumps(raw))
    assert Index.read(path).splits["val"][0].labels_sha256 == ""
    assert Index.read(path).fingerprint == index.fingerprint


def test_a_table_of_ids_is_written_and_hashed_as_before_there_were_colours(
    make_folder: Callable[..., FolderConfig], tmp_path: Path
) -> None:
    """So that no index, and nothing that depends on it, is stale without a reason."""
    index, path = prepare_dataset(make_folder(), "", tmp_path / "p"), tmp_path / "index.json"
    index.write(path)
    classes = json.loads(path.read_text())["classes"]
    assert {*classes} == {"names", "palette", "label_ids", "void_ids"}
    files = {
        sample.key: (sample.image_sha256, sample.labels_sha256)
        for samples in index.splits.values()
        for sample in samples
    }
    hashed = json.dumps({"classes": classes, "files": files}, sort_keys=True).encode()
    assert index.fingerprint == hashlib.sha256(hashed).hexdigest()


def test_a_file_that_changed_after_it_was_checked_is_named(
    make_camvid: Callable[..., CamVidConfig], tmp_path: Path
) -> None:
    index = prepare_dataset(make_camvid(), "abc", tmp_path / "pixels")
    sample = index.splits["val"][1]
    Image.new("RGB", (32, 24)).save(Path(index.root) / sample.labels)
    with pytest.raises(DatasetError, match=rf"{sample.labels}: pixels of another .* found colours"):
        read_labels(index, sample)
    Image.new("L", (16, 12)).save(Path(index.root) / sample.image)
    with pytest.raises(DatasetError, match=rf"{sample.image}: size .* 32x24; found 16x12"):
        read_image(index, sample)
