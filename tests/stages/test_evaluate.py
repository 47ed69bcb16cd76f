"""The evaluate stage: figures, saved predictions, and the options of inference."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.config.params import Params
from pipeline.datasets.index import Index, decode_labels, read_labels
from pipeline.models.network import build_network
from pipeline.models.students import save_student
from stages.cli import main
from store.metrics import confusion_matrix


@pytest.fixture
def folder(tiny_index: Index, tiny_params: Params, tmp_path: Path) -> Path:
    """An index and a student of it."""
    tiny_index.write(tmp_path / "index.json")
    student = build_network("deeplabv3_resnet18", tiny_index.num_classes)
    settings = tiny_params.students["r18_ce"]
    save_student(student, settings, tiny_index.classes, tmp_path / "model.pt")
    return tmp_path


def run(folder: Path, *options: str) -> Result:
    paths = [str(folder / name) for name in ("index.json", "model.pt", "scores.json")]
    return CliRunner().invoke(main, ["evaluate", *paths, "--device", "cpu", *options])


def test_saved_predictions_count_to_the_same_matrix(folder: Path) -> None:
    done = run(folder, "--save", str(folder / "saved"), "--batch", "2")
    assert done.exit_code == 0, done.output
    index = Index.read(folder / "index.json")
    total = np.zeros((index.num_classes, index.num_classes), np.int64)
    for sample in index.splits["val"]:
        path = folder / "saved" / f"{sample.key.partition('/')[2]}.png"
        classes = index.classes.class_of_id()[decode_labels(path)]
        total += confusion_matrix(read_labels(index, sample), classes, index.num_classes)
    scores = json.loads((folder / "scores.json").read_bytes())
    assert scores["confusion"] == total.tolist()
    assert {"miou", "dice", "mean_accuracy", "mean_boundary_f", "frequency_weighted_iou"} <= set(
        scores
    )
    assert len(scores["boundary_f"]) == index.num_classes


def test_scales_mirror_and_windows_are_options(folder: Path) -> None:
    options = ("--scales", "0.5,1", "--flip", "--window", "24", "--overlap", "0.5")
    assert run(folder, *options).exit_code == 0
    scores = json.loads((folder / "scores.json").read_bytes())
    assert 0 <= scores["miou"] <= 1
    assert run(folder).exit_code == 0
    assert json.loads((folder / "scores.json").read_bytes())["confusion"] != scores["confusion"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--scales", "big"), "expected numbers such as 0.5,1,1.5; found big"),
        (("--overlap", "1"), "--overlap"),
        (("--batch", "0"), "--batch"),
        (("--scales", "0"), "scales: expected numbers above 0"),
    ],
)
def test_options_out_of_range_are_named(
    options: tuple[str, ...], expected: str, folder: Path
) -> None:
    done = run(folder, *options)
    assert done.exit_code in (1, 2)
    assert expected in done.output
    assert not (folder / "scores.json").exists()
