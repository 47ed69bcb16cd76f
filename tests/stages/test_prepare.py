"""`cirkd prepare --check`: what a dataset holds, in words, in JSON and as a picture."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from ruamel.yaml import YAML

from stages.cli import main

ROOT = Path(__file__).parents[2]
CLASSES = """\
classes:
  - {id: 3, name: sky, colour: [10, 200, 30]}
  - {id: 7, name: road, colour: [200, 30, 10]}
  - {id: 9, name: tree, colour: [30, 10, 200]}
void: [0]
"""
SIZES = {"train": [(24, 40), (40, 40), (40, 96)], "val": [(40, 40)]}


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dataset of params.yaml: the left half sky, the right half road, a row void, no tree."""
    folder = tmp_path / "data"
    for split, sizes in SIZES.items():
        for number, (height, width) in enumerate(sizes):
            ids = np.full((height, width), 3, np.uint8)
            ids[:, width // 2 :] = 7
            ids[0] = 0
            save(folder / f"labels/{split}/{number}.png", ids)
            save(folder / f"images/{split}/{number}.png", np.full((height, width, 3), 90, np.uint8))
    save(folder / "more/one.png", np.full((16, 16, 3), 40, np.uint8))
    (folder / "classes.yaml").write_text(CLASSES)
    whole = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    whole["dataset"] = {"kind": "folder", "name": "some", "root": "data", "unlabelled": "more"}
    YAML().dump(whole, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def check(folder: Path) -> Callable[..., Result]:
    return lambda *options: CliRunner().invoke(main, ["prepare", "--check", *options])


def facts_of(done: Result) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_json_holds_sizes_values_and_absent_classes(check: Callable[..., Result]) -> None:
    done = check("--json", "--sheet", "a.png")
    assert done.exit_code == 0, done.output
    facts = facts_of(done)
    assert (facts["findings"], facts["sheet"]) == ([], "a.png")
    train = facts["splits"]["train"]
    assert (train["images"], train["height"], train["width"]) == (3, [24, 40, 40], [40, 40, 96])
    assert train["smaller"] == {"teacher.crop": 1, "store.crop": 1}  # of 32 x 32
    values = {one["value"]: one for one in train["values"]}
    pixels = {0: 40 + 40 + 96, 3: 23 * 20 + 39 * 20 + 39 * 48, 7: 23 * 20 + 39 * 20 + 39 * 48}
    assert {value: one["pixels"] for value, one in values.items()} == pixels
    assert {value: one["meaning"] for value, one in values.items()} == {
        0: "(void)",
        3: "sky",
        7: "road",
    }
    assert all(one["images"] == 3 for one in values.values())
    assert sum(one["share"] for one in values.values()) == pytest.approx(1)
    assert train["void"] == pytest.approx(176 / sum(pixels.values()))
    assert train["absent"] == ["tree"]
    more = facts["splits"]["unlabelled"]
    assert (more["images"], more["values"], more["absent"], more["void"]) == (1, [], [], None)


def test_words_say_the_same(check: Callable[..., Result]) -> None:
    done = check()
    assert done.exit_code == 0, done.output
    for line in (
        "train: 3 images",
        "  height  24 .. 40 px, median 40",
        "  smaller than store.crop (32x32): 1",
        "  classes absent: tree",
        "contact sheet: some-check.png",
    ):
        assert line in done.stdout.splitlines()
    assert [line.split() for line in done.stdout.splitlines() if " road " in line] == [
        ["7", "road", "48.62%", "3"],
        ["7", "road", "48.75%", "1"],
    ]


def test_colours_that_are_in_no_table_are_told(check: Callable[..., Result], folder: Path) -> None:
    classes = "labels: colours\nclasses: [{name: grey, colour: [7, 7, 7]}]\nvoid: [[3, 3, 3]]\n"
    (folder / "classes.yaml").write_text(classes)
    done = check()
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if "void: a colour not in the" in line]
    assert [line.split()[0] for line in lines] == ["254", "254"]
    assert "px are void because their colours are not in the class table; most in " in done.stdout
    *unknown, repeated = json.loads(check("--json").stdout)["notices"]
    assert [notice.split(":")[0] for notice in unknown] == ["train", "val"]
    assert repeated.startswith("1 images of train are in val or test too")


def test_nothing_is_written_but_the_sheet(check: Callable[..., Result], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    check()
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "some-check.png"])


def test_it_describes_what_prepare_refuses(check: Callable[..., Result], folder: Path) -> None:
    """Train ids where ids are expected: the values and the picture say so."""
    save(folder / "labels/train/1.png", np.full((40, 40), 200, np.uint8))
    (folder / "images/val/0.png").write_bytes(b"")
    done = check("--json")
    assert done.exit_code == 1
    assert "dataset at data: 2 finding(s)" in done.stderr
    facts = facts_of(done)
    assert {"labels/train/1.png", "images/val/0.png"} == {one["file"] for one in facts["findings"]}
    (unknown,) = (one for one in facts["splits"]["train"]["values"] if one["value"] == 200)
    assert (unknown["meaning"], unknown["pixels"], unknown["images"]) == ("(unknown)", 1600, 1)
    assert facts["splits"]["val"]["images"] == 0
    with Image.open("some-check.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(2**24) or ()}
    assert (255, 0, 255) in colours  # of unknown values, in the legend


def test_a_split_that_is_missing_says_how_the_dataset_unpacks(
    check: Callable[..., Result], folder: Path
) -> None:
    shutil.rmtree(folder / "images/val")
    done = check()
    assert done.exit_code == 1
    assert "images/{train,val}" in done.stderr


def test_the_sheet_shows_images_under_the_colours_of_their_labels(
    check: Callable[..., Result],
) -> None:
    check("--sheet", "a.png", "--seed", "1")
    check("--sheet", "b.png", "--seed", "1")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    with Image.open("a.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(2**24) or ()}
    opacity = 0.62
    for colour in ((10, 200, 30), (200, 30, 10)):
        mixed = tuple(round(opacity * value + (1 - opacity) * 90) for value in colour)
        assert {colour, mixed, (90, 90, 90)} <= colours


def test_generated_scenes_are_described_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["prepare", "--check", "--params", str(ROOT / "profiles/tiny.yaml")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "train: 6 images" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-check.png"]


def test_help_shows_an_example() -> None:
    done = CliRunner().invoke(main, ["prepare", "--help"])
    assert "cirkd prepare --check --sheet sheet.png" in done.output
