"""`cirkd watch`: what is running or unfinished, told from its files alone."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.config.params import Params
from stages.cli import main
from stages.watch import BARS, sparkline
from store.layout import unit_key
from store.lock import Lock
from store.manifest import Manifest
from store.reader import Reader
from store.schema import array_specs
from store.writer import Writer


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def log_training(name: str, header: dict[str, Any], num_logged: int, cut_off: str = "") -> Path:
    """A training that logged every tenth step, at four steps a second."""
    folder = Path("artifacts/work") / name
    folder.mkdir(parents=True)
    lines = [header]
    for step in range(10, 10 * num_logged + 1, 10):
        terms = {"task": 100 / step, "kd": 2.0}
        lines.append({"step": step, "total": 1 / step, "step_s": 0.25, "terms": terms})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text + cut_off)
    return folder


def watch() -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, ["watch", "--json"])
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_trainings_tell_step_rate_time_and_terms(tiny_params: Params) -> None:
    student = tiny_params.students["r18_ce"].model_dump(mode="json")
    student["training"]["steps"] = 70
    teacher = tiny_params.teacher.model_dump(mode="json")
    running = log_training("student-1", {"run": "r18_ce", "params": student}, 3, '{"step": 4')
    log_training("teacher-1", {"params": teacher}, 0)
    Path("artifacts/work/other").mkdir()
    Path("artifacts/work/train-r18_ce.log").touch()
    with Lock(running):
        first, second = watch()
        shown = CliRunner().invoke(main, ["watch", "--once"]).stdout.splitlines()
    assert first == {
        "title": "student r18_ce",
        "state": "running",
        "done": 30,
        "total": 70,
        "unit": "steps",
        "per_s": 4.0,
        "terms": {"task": [10.0, 5.0, 100 / 30], "kd": [2.0] * 3, "total": [0.1, 0.05, 1 / 30]},
        "left_s": 10.0,
    }
    steps = tiny_params.teacher.training.steps
    assert (second["title"], second["done"], second["total"]) == ("teacher tiny", 0, steps)
    assert (second["state"], second["per_s"], second["left_s"]) == ("unfinished", None, None)
    assert shown[0] == "student r18_ce  30/70 steps  4.00 steps/s  10 s left  running"
    assert shown[1].split() == ["task", "3.3333", sparkline([10.0, 5.0, 100 / 30])]
    assert shown[2].split() == ["kd", "2.0000", BARS[0] * 3]
    assert shown[4] == f"teacher tiny  0/{steps} steps  unfinished"


def test_an_extraction_is_shown_until_its_manifest_is_there(tiny_store: Reader) -> None:
    spec = tiny_store.spec
    store = Path("artifacts/stores") / spec.fingerprint
    shutil.copytree(tiny_store.path, store)
    last = spec.num_units - 1
    with Writer.open(store, spec) as writer:
        writer.revoke(last)
        (found,) = watch()
    assert (found["title"], found["state"]) == (f"extraction {spec.fingerprint}", "running")
    left = len(spec.unit_records(last))
    assert (found["done"], found["total"]) == (spec.num_records - left, spec.num_records)
    assert watch()[0]["state"] == "unfinished"
    shutil.copytree(tiny_store.path, store.with_name("of-former-settings"))
    assert len(watch()) == 1
    Manifest.of(str(store), spec, tiny_store.journal).write("manifest.json")
    Path("artifacts/manifests").mkdir()
    os.replace("manifest.json", "artifacts/manifests/tiny.json")
    assert watch() == []


def test_the_rate_of_an_extraction_is_of_when_its_files_were_written(tiny_store: Reader) -> None:
    store = Path("artifacts/stores/copy")
    shutil.copytree(tiny_store.path, store)
    units = list(tiny_store.journal.units)
    for array in array_specs(tiny_store.spec).values():
        for number, unit in enumerate(units):
            os.utime(store / unit_key(array, unit), (10.0 * number, 10.0 * number))
    counted = sum(len(tiny_store.spec.unit_records(unit)) for unit in units[1:])
    with Writer.open(store, tiny_store.spec):
        found = watch()[0]["per_s"]
    assert found == pytest.approx(counted / (10.0 * (len(units) - 1)))


def test_nothing_to_show_is_said() -> None:
    assert watch() == []
    assert "nothing is running" in CliRunner().invoke(main, ["watch"]).stdout


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([1.0, 1.0, 1.0], "▁▁▁"),
        ([0.0, 7.0, 3.5], "▁█▅"),
        ([0.0, 2.0, 6.0, 8.0], "▁█"),
    ],
)
def test_a_curve_reaches_from_its_least_to_its_greatest(values: list[float], drawn: str) -> None:
    assert sparkline(values, width=3 if len(values) < 4 else 2) == drawn
