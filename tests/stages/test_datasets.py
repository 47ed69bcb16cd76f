"""The commands fingerprint and prepare on the official layouts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import official_layouts
import pytest
from click.testing import CliRunner
from PIL import Image
from ruamel.yaml import YAML

from stages.cli import main

ROOT = Path(__file__).parents[2]
DONE = {
    "cityscapes": "cityscapes: 3 train, 2 val, 1 test; 19 classes",
    "voc": "voc: 3 train, 2 val; 21 classes",
    "ade20k": "ade20k: 3 train, 2 val; 150 classes",
    "coco_stuff": "coco_stuff: 3 train, 2 val; 171 classes",
    "camvid": "camvid: 3 train, 2 val, 1 test; 11 classes",
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Runs fingerprint and prepare on a section `dataset`; the output of the last that ran."""

    def run_both(section: dict[str, Any], exit_code: int = 0) -> str:
        params, fingerprint = tmp_path / "params.yaml", str(tmp_path / "fingerprint.json")
        raw = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml") | {"dataset": section}
        YAML().dump(raw, params)
        for words in (
            ["fingerprint", fingerprint],
            ["prepare", fingerprint, str(tmp_path / "out")],
        ):
            done = CliRunner().invoke(main, [*words, "--params", str(params)])
            if done.exit_code:
                break
        assert done.exit_code == exit_code, done.output
        return done.output

    return run_both


@pytest.mark.parametrize("kind", DONE)
def test_an_official_folder_is_prepared(kind: str, run: Callable[..., str], tmp_path: Path) -> None:
    section = getattr(official_layouts, f"make_{kind}")(tmp_path / "root")
    assert run(section).splitlines()[-1] == DONE[kind]
    assert (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("kind", DONE)
def test_an_empty_folder_is_refused_with_the_archives(
    kind: str, run: Callable[..., str], tmp_path: Path
) -> None:
    output = run({"kind": kind, "name": kind, "root": str(tmp_path)}, exit_code=1)
    assert "a folder without files of this kind" in output
    assert "http" in output
    assert "Traceback" not in output


def test_unknown_colours_are_told(run: Callable[..., str], tmp_path: Path) -> None:
    section = official_layouts.make_camvid(tmp_path / "root", layout="sorted")
    path = tmp_path / "root/train_labels/0001TP_000000_L.png"
    with Image.open(path) as file:
        labels = file.copy()
    labels.putpixel((3, 4), (1, 2, 3))
    labels.save(path)
    assert "train: 1 of 9216 px are void because their colours" in run(section)


@pytest.mark.parametrize("kind", DONE)
def test_a_layout_is_made_the_same_for_the_same_seed(kind: str, tmp_path: Path) -> None:
    make = getattr(official_layouts, f"make_{kind}")
    contents = []
    for number, seed in enumerate((0, 0, 1)):
        root = tmp_path / str(number)
        make(root, seed=seed)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        contents.append({path.relative_to(root): path.read_bytes() for path in files})
    same, again, other = contents
    assert same == again
    assert same.keys() == other.keys()
    assert same != other
