"""The evaluate stage: figures, saved predictions, and the options of inference."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.config.params import Params
from pipeline.datasets.classes import class_table
from pipeline.datasets.decoding import decode_labels
from pipeline.datasets.index import Index, read_labels
from pipeline.models.network import build_network
from pipeline.models.students import save_student
from pipeline.models.teacher import TeacherCard, save_teacher
from stages.cli import main
from store.files import write_json
from store.metrics import confusion_matrix


@pytest.fixture
def folder(tiny_index: Index, tiny_params: Params, tmp_path: Path) -> Path:
    """An index and a student of it."""
    tiny_index.write(tmp_path / "index.json")
    student = build_network("deeplabv3_resnet18", tiny_index.num_classes)
    settings = tiny_params.students["r18_ce"]
    save_student(student, settings, tiny_index.classes, tmp_path / "model.pt")
    return tmp_path


@pytest.fixture
def teacher(folder: Path) -> str:
    """A teacher's file with its card, under its name in the folder."""
    index = Index.read(folder / "index.json")
    network = build_network("deeplabv3_resnet18", index.num_classes)
    card = TeacherCard(
        architecture=network.architecture,
        class_names=list(index.class_names),
        source="checkpoint",
        sha256=save_teacher(network, folder / "teacher.pt"),
        val={},
        num_parameters=1,
        seconds=0.0,
    )
    write_json(asdict(card), folder / "teacher.json")
    return "teacher.pt"


def run(
    folder: Path, *options: str, network: str = "model.pt", scores: str = "scores.json"
) -> Result:
    paths = [str(folder / name) for name in ("index.json", network, scores)]
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
        (("--scales", "0"), "scales: expected finite numbers above 0"),
        (("--scales", "1,inf"), "scales: expected finite numbers above 0"),
        (("--scales", "nan"), "scales: expected finite numbers above 0"),
    ],
)
def test_options_out_of_range_are_named(
    options: tuple[str, ...], expected: str, folder: Path
) -> None:
    done = run(folder, *options)
    assert done.exit_code in (1, 2)
    assert expected in done.output
    assert not (folder / "scores.json").exists()


def test_a_teacher_stands_beside_a_student(folder: Path, teacher: str) -> None:
    options = ("--scales", "0.5,1", "--flip", "--json")
    done = run(folder, *options, network=teacher)
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert scores == json.loads((folder / "scores.json").read_bytes())
    # The student has the same architecture, and other weights.
    assert json.loads(run(folder, *options).stdout)["confusion"] != scores["confusion"]


def test_a_card_is_no_destination(folder: Path, teacher: str) -> None:
    before = (folder / "teacher.json").read_bytes()
    done = run(folder, network=teacher, scores="teacher.json")
    assert done.exit_code == 2
    assert "where a teacher's card lies" in done.stderr
    assert (folder / "teacher.json").read_bytes() == before


def test_figures_beside_a_pack_are_no_card(folder: Path) -> None:
    pack = ["pack", str(folder / "model.pt"), "-o", str(folder / "student.zip"), "--no-onnx"]
    assert CliRunner().invoke(main, pack).exit_code == 0
    figures = [run(folder, network="student.zip", scores="student.json") for _ in range(2)]
    assert [done.exit_code for done in figures] == [0, 0], figures[1].output


def test_a_teacher_without_its_cards_weights_is_refused(folder: Path, teacher: str) -> None:
    network = build_network("deeplabv3_resnet18", Index.read(folder / "index.json").num_classes)
    save_teacher(network, folder / teacher)
    done = run(folder, network=teacher)
    assert done.exit_code == 1
    assert "other weights than its card's" in done.stderr


@pytest.mark.parametrize("network", ["model.pt", "teacher.pt"])
@pytest.mark.parametrize("change", ["order", "number"])
def test_a_network_of_other_classes_is_refused(
    network: str, change: str, folder: Path, teacher: str
) -> None:
    """Its numbers would be given the names of others."""
    index = Index.read(folder / "index.json")
    first, second, *rest = index.class_names
    names = (second, first, *rest) if change == "order" else (first, second, *rest, "more")
    size = len(names)
    classes = class_table(names, index.classes.palette[:1] * size)
    replace(index, classes=classes).write(folder / "index.json")
    done = run(folder, network=network)
    assert done.exit_code == 1
    expected = f"0: expected {first}, found {second}" if change == "order" else f"has {size};"
    assert expected in done.stderr
    assert not (folder / "scores.json").exists()


def test_people_get_a_table_of_classes_and_a_figure(folder: Path) -> None:
    done = run(folder, "--figure", str(folder / "confusion.png"))
    assert done.exit_code == 0, done.output
    index, scores = (
        Index.read(folder / "index.json"),
        json.loads((folder / "scores.json").read_bytes()),
    )
    header, _, *rows = (line.split() for line in done.stdout.splitlines() if line.strip())
    assert header == ["class,", "%", "IoU", "Dice", "accuracy", "boundary", "F"]
    for name, iou, row in zip(index.class_names, scores["iou"], rows, strict=False):
        assert row[0] == name
        if iou is not None:
            assert row[1] == f"{100 * iou:.1f}"
    assert "\x1b" not in done.output
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    quiet = CliRunner().invoke(
        main,
        ["--quiet", "evaluate", *(str(folder / x) for x in ("index.json", "model.pt", "s.json"))],
    )
    assert quiet.output == ""
