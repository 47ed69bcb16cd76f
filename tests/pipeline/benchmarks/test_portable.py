"""The cost of README's commands, in a figure that does not depend on the machine's speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.benchmarks import portable
from stages.cli import main


def test_cost_is_seconds_times_the_matrix_rate(tmp_path: Path, monkeypatch) -> None:
    ran = []

    def run(project: Path, *arguments: str) -> float:
        ran.append(arguments)
        return 100.0

    monkeypatch.setattr(portable, "_run_seconds", run)
    monkeypatch.setattr(portable, "matrix_rate", lambda *_: 2e11)
    before, figures = portable.benchmark(tmp_path, suite=True)
    assert figures["repro_tflop"] == pytest.approx(20.0)
    assert figures["matrix_gflops"] == pytest.approx(200.0)
    assert figures["suite_s"] == 100.0
    assert [arguments[-1] for arguments in ran] == ["stages.repro", "pytest"]
    assert figures == {**before, "suite_s": 100.0}
    assert list(portable.benchmark(tmp_path, suite=False)) == [before]


def test_only_a_fresh_clone_is_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    done = CliRunner().invoke(main, ["benchmark", "portable", "--out", "out.json"])
    assert done.exit_code == 1
    assert "fresh clone" in done.output
    assert not (tmp_path / "out.json").exists()


def test_a_command_that_fails_is_no_measurement(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(portable, "matrix_rate", lambda *_: 1e11)

    def fail(project: Path, *arguments: str) -> float:
        raise subprocess.CalledProcessError(3, [sys.executable, *arguments])

    monkeypatch.setattr(portable, "_run_seconds", fail)
    done = CliRunner().invoke(main, ["benchmark", "portable", "--out", "out.json"])
    assert done.exit_code == 1
    assert "nothing was measured" in done.output
    assert not (tmp_path / "out.json").exists()


def test_a_suite_that_fails_leaves_the_cost_of_the_pipeline(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(portable, "matrix_rate", lambda *_: 2e11)

    def run(project: Path, *arguments: str) -> float:
        if "pytest" in arguments:
            raise subprocess.CalledProcessError(1, [sys.executable, *arguments])
        return 100.0

    monkeypatch.setattr(portable, "_run_seconds", run)
    done = CliRunner().invoke(main, ["benchmark", "portable", "--out", "out.json"])
    assert done.exit_code == 1
    assert "out.json has what came before it" in done.output
    assert json.loads((tmp_path / "out.json").read_text())["repro_tflop"] == pytest.approx(20.0)
