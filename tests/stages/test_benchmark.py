"""Benchmarks as commands: what cannot be measured is refused before anything is done."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    text = (ROOT / "profiles/tiny.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("method: cirkd,", "method: cirkd, distillation: {memory: bank},"))
    return path


def test_num_views_refuses_a_bank(params: Path, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("index.json", "teacher.pt")]
    options = ["--params", str(params), "--out", str(tmp_path / "out.json")]
    done = CliRunner().invoke(main, ["benchmark", "num-views", *files, *options])
    assert done.exit_code == 1
    assert "expected queue, found bank" in done.output
    assert list(tmp_path.iterdir()) == [params]


def test_step_refuses_an_unknown_student(tmp_path: Path) -> None:
    options = ["--student", "nobody", "--out", str(tmp_path / "out.json"), "--device", "cpu"]
    done = CliRunner().invoke(main, ["benchmark", "step", *options])
    assert done.exit_code == 2
    assert "expected one of deeplabv3_resnet101" in done.output
