"""No name of params.yaml reaches a shell, or a path, before it is checked."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.config.params import ParamsError, load_params
from stages.cli import main

ROOT = Path(__file__).parents[2]
NAMES = ("profile", "dataset", "teacher", "store", "students")
HOSTILE = (
    "x;touch PWNED;",
    "x'$(touch PWNED)'",
    "x\ntouch PWNED\n",
    "../x",
    "/x",
    "",
    "-x",
    "x" * 999,
)


def write_params(names: tuple[str, ...], hostile: str, path: Path) -> Path:
    """The tiny profile with a hostile name in each of some places."""
    raw = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    for name in names:
        if name == "profile":
            raw["profile"] = hostile
        elif name == "students":
            raw["students"] = {hostile: raw["students"]["r18_ce"]}
        else:
            raw[name]["name"] = hostile
    YAML().dump(raw, path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What DVC needs of the project, in a folder without git."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_name_is_refused(name: str, hostile: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=name):
        load_params(write_params((name,), hostile, tmp_path / "params.yaml"))


@pytest.mark.parametrize("arguments", [["repro", "-s", "report"], ["train", "--all"]])
def test_our_commands_check_names_before_dvc_starts(arguments: list[str], project: Path) -> None:
    write_params(NAMES, HOSTILE[0], project / "params.yaml")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "students.x;touch PWNED;" in done.output
    assert sorted(path.name for path in project.iterdir()) == [".dvc", "dvc.yaml", "params.yaml"]


@pytest.mark.parametrize(
    ("names", "hostile"),
    [
        (NAMES, HOSTILE[0]),
        pytest.param(NAMES, HOSTILE[1], marks=pytest.mark.slow),
        pytest.param(("dataset",), "../../x", marks=pytest.mark.slow),
    ],
)
def test_dvc_runs_nothing_with_a_hostile_name(
    names: tuple[str, ...], hostile: str, project: Path
) -> None:
    write_params(names, hostile, project / "params.yaml")
    before = {path for path in project.parent.rglob("*") if ".dvc" not in path.parts}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for command in (["config", "--local", "core.no_scm", "true"], ["repro"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], env=environment, capture_output=True, text=True
        )
    assert done.returncode != 0
    assert "String should match pattern" in done.stderr, done.stderr
    made = {path for path in project.parent.rglob("*") if ".dvc" not in path.parts} - before
    assert {path.name for path in made} <= {"artifacts", ".gitignore"}


def test_every_stage_hangs_on_the_first_whose_command_holds_no_name() -> None:
    stages: dict[str, Any] = {
        name: stage.get("do", stage)
        for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items()
    }
    assert "${" not in str(stages["fingerprint"])
    makers = {out: name for name, stage in stages.items() for out in _paths(stage, "outs")}
    reached = {"fingerprint"}
    for name, stage in stages.items():  # in the order of the route
        before = {makers.get(path) for path in _paths(stage, "deps")}
        if before & reached:
            reached.add(name)
    assert reached == set(stages)


def _paths(stage: dict[str, Any], key: str) -> Iterator[str]:
    for entry in stage.get(key, []):
        yield entry if isinstance(entry, str) else next(iter(entry))


WITH_A_STAND_IN = """
import os, signal, sys, time
import stages.repro

STAND_IN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('begun', flush=True);"
    "time.sleep(1); open('ended', 'w'); raise SystemExit(255)"
)
stages.repro.prepare_dvc = lambda: ([sys.executable, "-c", STAND_IN], dict(os.environ))
stages.repro.command([])
"""


def test_ctrl_c_waits_for_dvc_and_its_stage(tmp_path: Path) -> None:
    """While a stage runs DVC ignores the signal, and the stage takes a moment to keep its work."""
    running = subprocess.Popen(
        [sys.executable, "-c", WITH_A_STAND_IN],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    with running:
        assert running.stdout.readline() == b"begun\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 3
    assert (tmp_path / "ended").exists()
