"""Small generated datasets in the layouts the project reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config.datasets import dataset_module
from pipeline.datasets.camvid import Config as CamVidConfig
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.index import Index
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.scenes.dataset import Config as ScenesConfig

CLASSES_YAML = """\
classes:
  - {id: 7, name: road, colour: [128, 64, 128]}
  - {id: 24, name: person, colour: [220, 20, 60]}
  - {id: 0, name: sky, colour: [70, 130, 180]}
void: [255, 3]
"""


def write_pair(image: Path, labels: Path, ids: np.ndarray, seed: int) -> None:
    """Write a random image of the size of `ids`, and `ids` as a greyscale file."""
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*ids.shape, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    Image.fromarray(ids).save(labels)


def random_ids(choices: list[int], seed: int, shape: tuple[int, int] = (24, 32)) -> np.ndarray:
    """Label ids in which every choice occurs."""
    ids = np.random.default_rng(seed).choice(np.array(choices, np.uint8), shape)
    ids[0, : len(choices)] = choices
    return ids


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Index]:
    """Checks the dataset that a section of params.yaml names."""

    def check(section: dict[str, Any], **options: Any) -> Index:
        dataset = dataset_module(section["kind"]).Config.model_validate(section)
        return prepare_dataset(dataset, "", tmp_path / "pixels", **options)

    return check


@pytest.fixture
def make_camvid(tmp_path: Path) -> Callable[..., CamVidConfig]:
    """Builds a twin of CamVid: SegNet's folders, ids 0..11, three images a split."""

    def make(
        root: Path = tmp_path / "camvid", splits: tuple[str, ...] = ("train", "val")
    ) -> CamVidConfig:
        for number, split in enumerate(splits):
            for count in range(3):
                name = f"0001TP_{count:06d}"
                seed = 10 * number + count
                image = root / split / f"{name}.{'jpg' if count else 'png'}"
                labels = root / f"{split}annot" / f"{name}.png"
                write_pair(image, labels, random_ids(list(range(12)), seed), seed)
        return CamVidConfig(kind="camvid", name="camvid", root=str(root))

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., FolderConfig]:
    """Builds a dataset of kind folder with sparse label ids and two void ids."""

    def make(root: Path = tmp_path / "folder", classes: str = CLASSES_YAML) -> FolderConfig:
        for number, split in enumerate(("train", "val")):
            for count in range(2):
                paths = (
                    root / f"{role}/{split}/image.{count}.png" for role in ("images", "labels")
                )
                seed = 10 * number + count
                write_pair(*paths, random_ids([7, 24, 0, 255, 3], seed), seed)
        (root / "classes.yaml").write_text(classes)
        return FolderConfig(kind="folder", name="folder", root=str(root))

    return make


@pytest.fixture
def scenes() -> ScenesConfig:
    """A few small scenes."""
    return ScenesConfig(
        kind="scenes",
        name="scenes",
        seed=3,
        num_train=6,
        num_val=3,
        height=32,
        width=64,
    )
