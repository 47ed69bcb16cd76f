"""The extract stage as a user runs it: with worker processes, signals, and losses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from pipeline.config.params import Params
from pipeline.datasets.index import Index
from pipeline.models.teacher import TeacherCard, build_teacher, save_teacher
from store.files import PARTIAL, write_json
from store.layout import JOURNAL

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
FATAL = """
import os, runpy, sys
from pathlib import Path
from types import SimpleNamespace
import click
from stages.command import StageCommand, follow_extraction
from stages.extract import _on_cluster

class Fatal:
    def dealt_to(self, worker):
        return self

    def load(self):
        os._exit(1)

@click.command(cls=StageCommand, example="")
def command():
    spec = runpy.run_path("tests/store/stand_in.py")["make_spec"]()
    job = SimpleNamespace(spec=spec)
    follow_extraction(job, Path(sys.argv[1]), extract_with=_on_cluster(Fatal(), 1, None))

if __name__ == "__main__":
    command([])
"""


@pytest.fixture(scope="module")
def arguments(
    tiny_params: Params, tiny_index: Index, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """INDEX TEACHER --params of a store of 180 units."""
    folder = tmp_path_factory.mktemp("extract")
    index, teacher, params = folder / "index.json", folder / "teacher.pt", folder / "params.yaml"
    tiny_index.write(index)
    network = build_teacher(tiny_params.teacher, tiny_index.class_names)
    card = TeacherCard(
        architecture=network.architecture,
        class_names=list(tiny_index.class_names),
        source="train",
        sha256=save_teacher(network, teacher),
        val={},
        num_parameters=0,
        seconds=0.0,
    )
    write_json(asdict(card), teacher.with_suffix(".json"))
    text = (ROOT / "profiles/tiny.yaml").read_text()
    params.write_text(text.replace("views: 1", "views: 60").replace("unit_size: 4", "unit_size: 2"))
    return [str(index), str(teacher), "--params", str(params), "--stores", "stores"]


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run Python in a process group of its own, as a terminal does, of which nothing is left."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def num_entries(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.rglob(JOURNAL))


def end_of(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """The exit code, and what stood on stderr but for progress."""
    said = process.communicate(timeout=300)[1]
    return process.returncode, [
        line for line in said.splitlines() if not line.startswith("extract")
    ]


def group_of(process: subprocess.Popen[str]) -> list[int]:
    return [pid for pid in psutil.pids() if pid != process.pid and _group(pid) == process.pid]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A dask scheduler's address, and its process."""
    file = folder / "scheduler.json"
    options = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", file]
    with running(["-m", "distributed.cli.dask_scheduler", *map(str, options)], folder) as process:
        wait_until(lambda: file.exists() and file.stat().st_size > 0)
        yield json.loads(file.read_text())["address"], process


def test_ctrl_c_reaches_the_stage_and_no_worker(arguments: list[str], tmp_path: Path) -> None:
    command = ["-m", "stages.extract", *arguments, "--workers", "2", "manifest.json"]
    with running(command, tmp_path) as process:
        wait_until(lambda: num_entries(tmp_path) > 5)
        os.killpg(process.pid, signal.SIGINT)
        code, said = end_of(process)
        assert code == 3, said
        assert [line.partition(":")[0] for line in said] == ["interrupted"]
        wait_until(lambda: not group_of(process))
    kept = num_entries(tmp_path)
    assert 5 < kept < 180
    with running(command, tmp_path) as process:
        assert end_of(process) == (0, [])
    assert num_entries(tmp_path) == 181
    assert not list(tmp_path.rglob(f"*{PARTIAL}"))


def test_ctrl_c_ends_waiting_for_workers(arguments: list[str], tmp_path: Path) -> None:
    with scheduler(tmp_path) as (address, _):
        command = ["-m", "stages.extract", *arguments, "--scheduler", address, "manifest.json"]
        with running(command, tmp_path) as process:
            wait_until(lambda: num_entries(tmp_path) == 1)
            os.killpg(process.pid, signal.SIGINT)
            code, said = end_of(process)
        assert code == 3, said


def test_a_lost_scheduler_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    with scheduler(tmp_path) as (address, lost):
        worker = ["-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        command = ["-m", "stages.extract", *arguments, "--scheduler", address, "manifest.json"]
        with running(worker, tmp_path), running(command, tmp_path) as process:
            wait_until(lambda: num_entries(tmp_path) > 5)
            lost.kill()
            code, said = end_of(process)
    assert code == 1
    assert said == [
        "Error: the scheduler was lost; finished units are kept, the same command goes on"
    ]


def test_workers_that_die_are_one_sentence(tmp_path: Path) -> None:
    script = tmp_path / "fatal.py"
    script.write_text(FATAL)
    with running([str(script), str(tmp_path / "store")], ROOT) as process:
        code, said = end_of(process)
    assert code == 1
    assert len(said) == 1
    assert said[0].startswith("Error: 4 workers died over one unit")
