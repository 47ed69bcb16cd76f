"""Benchmarks as commands: what cannot be measured is refused before anything is done."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.params import Params
from pipeline.datasets.classes import class_table
from pipeline.models.network import build_network
from pipeline.models.students import save_student
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


@pytest.mark.parametrize(
    "runtimes", [("torch",), pytest.param(("onnxruntime", "torch"), marks=pytest.mark.slow)]
)
def test_inference_times_each_runtime_that_is_there(
    runtimes: tuple[str, ...],
    tiny_params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if len(runtimes) == 1:
        monkeypatch.setattr("pipeline.benchmarks.inference.find_spec", lambda name: None)
    else:
        pytest.importorskip("onnxruntime", reason="extra `export`")
        pytest.importorskip("onnxscript", reason="extra `export`")
    tiny = Architecture("Tiny", "tiny_networks:tiny_student", "")
    monkeypatch.setitem(ARCHITECTURES, "tiny_student", tiny)
    settings = tiny_params.students["r18_ce"].model_copy(update={"architecture": "tiny_student"})
    student, out = tmp_path / "model.pt", tmp_path / "out.json"
    save_student(build_network("tiny_student", 3), settings, class_table("abc"), student)
    options = ["--out", str(out), "--size", "33x41", "--rounds", "1", "--device", "cpu"]
    done = CliRunner().invoke(main, ["benchmark", "inference", str(student), *options])
    assert done.exit_code == 0, done.output
    figures = json.loads(out.read_bytes())["33x41"]
    assert [*figures] == [f"{student} {runtime}" for runtime in runtimes]
    for found in figures.values():
        assert found["ms"] * found["images_per_s"] == pytest.approx(1000)
