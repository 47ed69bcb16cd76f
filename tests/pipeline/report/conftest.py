"""The results of a whole profile, fabricated: what report and its parts read."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from torch import nn

from pipeline.config.params import Params, load_params, write_params
from pipeline.datasets.index import ClassTable, Index, Sample
from pipeline.models.network import Network, Output
from store.files import write_json
from store.manifest import Manifest

PROFILES = Path(__file__).parents[3] / "profiles"
CLASSES = ("road", "<b>&sky", "car", "never seen")
PALETTE = ((128, 64, 128), (70, 130, 180), (0, 0, 142), (220, 20, 60))
HEIGHT, WIDTH = 20, 28

Asked = tuple[str | None, float | None] | tuple[str | None, float | None, dict[str, Any]]
"""A student: its method, the mIoU it shall have, and keys of its params."""


class Constant(Network):
    """A network that gives every pixel one class."""

    stride = 8

    def __init__(self, chosen: int) -> None:
        super().__init__()
        self.register_buffer("logits", nn.functional.one_hot(torch.tensor(chosen), 4).float())

    def forward(self, image: torch.Tensor) -> Output:
        height, width = image.shape[-2] // 8, image.shape[-1] // 8
        logits = self.logits.view(1, 4, 1, 1).expand(len(image), 4, height, width)
        return Output(logits, logits, None)


def make_params(path: Path, students: dict[str, Asked]) -> Params:
    """Params of the tiny profile with other students, also written to `path`."""
    raw = YAML(typ="safe").load(PROFILES / "tiny.yaml")
    raw["students"] = {
        name: {"architecture": "deeplabv3_resnet18", "method": method, "seed": 0, **dict(*more)}
        for name, (method, _, *more) in students.items()
    }
    YAML().dump(json.loads(json.dumps(raw)), path)  # what is shared would be an alias
    params = load_params(path)
    write_params(params, path)
    return params


def scores(miou: float | None) -> dict[str, Any]:
    """An evaluation with the third class harder and the fourth absent."""
    value = 0.0 if miou is None else miou
    return {
        "miou": miou,
        "iou": [value + 0.1, value, value - 0.1, None],
        "pixel_accuracy": min(1.0, value + 0.2),
        "confusion": [[90, 10, 0, 0], [20, 60, 0, 0], [30, 0, 30, 0], [0, 0, 0, 0]],
        "mean_accuracy": 0.731,
    }


def write_dataset(artifacts: Path, params: Params, num_val: int = 5) -> Index:
    """Tiny images whose labels are road below sky, with a void border; and their index."""
    pixels = artifacts / "datasets" / params.dataset.name / "pixels"
    pixels.mkdir(parents=True)
    random = np.random.default_rng(0)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:8] = 1
    labels[:, :2] = 255
    samples = []
    for n in range(num_val):
        image = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(image).save(pixels / f"{n}.png")
        Image.fromarray(labels).save(pixels / f"{n}-labels.png")
        samples.append(Sample(f"val/{n}", f"{n}.png", f"{n}-labels.png", HEIGHT, WIDTH))
    index = Index(
        name=params.dataset.name,
        kind="scenes",
        root=str(pixels),
        fingerprint="da7a" * 16,
        classes=ClassTable(CLASSES, PALETTE, (0, 1, 2, 3), (255,)),
        splits={"train": tuple(samples[:3]), "val": tuple(samples)},
        most_classes=2,
    )
    index.write(pixels.parent / "index.json")
    return index


def write_teacher_and_store(artifacts: Path, params: Params) -> None:
    """The card, the manifest and the audit; no weights."""
    write_json(
        {
            "architecture": "deeplabv3_resnet101",
            "class_names": list(CLASSES),
            "source": "train",
            "sha256": "7eac" * 16,
            "val": scores(0.7),
            "num_parameters": 60_987_654,
            "seconds": 180.0,
        },
        artifacts / "teachers" / f"{params.teacher.name}.json",
    )
    log = artifacts / "teachers" / f"{params.teacher.name}.log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in ({}, *log_lines(["task"]))))
    manifest = artifacts / "manifests" / f"{params.store.name}.json"
    manifest.parent.mkdir(parents=True)
    Manifest("artifacts/stores/f00d", "f00d", 6, "d1e5", 1).write(manifest)
    arrays = {
        "image": {"stored_bytes": 900_000, "raw_bytes": 1_000_000},
        "logits": {"stored_bytes": 400_000, "raw_bytes": 2_000_000},
        "flip": {"stored_bytes": 10, "raw_bytes": 6},
        "top": {"stored_bytes": 20, "raw_bytes": 24},
    }
    write_json(
        {
            "fingerprint": "f00d",
            "digest": "d1e5",
            "records": 6,
            "images": 3,
            "views": 2,
            "teacher_miou": 0.75,
            "stored_bytes": 1_300_030,
            "raw_bytes": 3_000_030,
            "arrays": arrays,
        },
        manifest.with_suffix(".audit.json"),
    )


def log_lines(terms: list[str]) -> list[dict[str, Any]]:
    """What a training logs, all terms falling."""
    return [
        {
            "step": step,
            "total": 2.0,
            "learning_rate": 0.001,
            "wait_s": 0.001,
            "step_s": 9.0 if step == 1 else 0.25,
            "terms": dict.fromkeys(terms, 1 / step),
        }
        for step in (1, 10, 20, 30)
    ]


def write_run(profile: Path, params: Params, name: str, miou: float | None) -> None:
    """What train and evaluate leave behind, without the weights."""
    settings, folder = params.students[name], profile / "students" / name
    terms = ["task", "auxiliary", *settings.weights]
    header = {
        "run": name,
        "store": "f00d",
        "device": "cpu",
        "versions": {"python": "3.11.2", "torch": "2.8.0"},
        "label": settings.label,
        "params": settings.model_dump(mode="json"),
    }
    costs = {"num_parameters": 15_900_000, "seconds": 61.5, "peak_memory_bytes": 1_234_567_890}
    write_json({**header, **costs}, folder / "run.json")
    text = "\n".join(json.dumps(line) for line in (header, *log_lines(terms)))
    (folder / "log.jsonl").write_text(text + "\n")
    (folder / "model.pt").touch()
    evaluation = {"split": "val", "seconds": 2.5, "mean_boundary_f": 0.423, **scores(miou)}
    write_json(evaluation, folder / "evaluation.json")


@pytest.fixture
def constant() -> type[Constant]:
    """A network that gives every pixel one class, by that class."""
    return Constant


def make_artifacts(folder: Path, students: dict[str, Asked]) -> tuple[Path, Params]:
    """A whole artifacts folder: the profile's folder in it and its params (params.yaml)."""
    params = make_params(folder / "params.yaml", students)
    artifacts = folder / "artifacts"
    write_dataset(artifacts, params)
    write_teacher_and_store(artifacts, params)
    for name, (_, miou, *_) in students.items():
        write_run(artifacts / "profiles" / "tiny", params, name, miou)
    return artifacts / "profiles" / "tiny", params


@pytest.fixture(scope="session")
def fabricate_in() -> Callable[[Path, dict[str, Asked]], tuple[Path, Params]]:
    """Make artifacts in a folder."""
    return make_artifacts


@pytest.fixture
def fabricate(tmp_path: Path) -> Callable[[dict[str, Asked]], tuple[Path, Params]]:
    """Make artifacts in a folder of the test's own."""
    return partial(make_artifacts, tmp_path)


@pytest.fixture
def made(
    fabricate: Callable[[dict[str, Asked]], tuple[Path, Params]],
) -> tuple[Path, Params]:
    """A profile with a cross-entropy run and a distilled one."""
    return fabricate({"r18_ce": ("ce", 0.5), "r18_cirkd": ("cirkd", 0.55)})


@pytest.fixture
def profile(made: tuple[Path, Params]) -> Path:
    return made[0]


@pytest.fixture
def params(made: tuple[Path, Params]) -> Params:
    return made[1]
