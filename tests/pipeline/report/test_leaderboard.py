"""The leaderboard: rows, gains and intervals by hand, and its forms."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.config.params import Params
from pipeline.report.comparison import Spread
from pipeline.report.leaderboard import (
    COLUMNS,
    Entry,
    as_csv,
    as_json,
    as_markdown,
    read_leaderboard,
)
from stages.cli import main

CE, CIRKD = (0.50, 0.52, 0.51), (0.53, 0.54, 0.535)


@pytest.fixture
def artifacts(fabricate: Callable[[dict], tuple[Path, Params]]) -> Path:
    """Three seeds of cross-entropy and of CIRKD, and one of KD."""
    students = {
        **{f"ce_{seed}": ("ce", miou, {"seed": seed}) for seed, miou in enumerate(CE)},
        **{f"cirkd_{seed}": ("cirkd", miou, {"seed": seed}) for seed, miou in enumerate(CIRKD)},
        "kd_0": ("kd", 0.49, {}),
    }
    profile, _ = fabricate(students)
    return profile.parent.parent


def test_gains_are_paired_and_the_best_is_first(artifacts: Path) -> None:
    cirkd, ce, kd = read_leaderboard(artifacts)
    assert [entry.method for entry in (cirkd, ce, kd)] == ["CIRKD", "CE", "KD"]
    gains = [after - before for before, after in zip(CE, CIRKD, strict=True)]
    mean = sum(gains) / 3
    deviation = (sum((gain - mean) ** 2 for gain in gains) / 2) ** 0.5
    assert cirkd.gain == pytest.approx(mean)
    reach = 4.303 * deviation / 3**0.5
    assert cirkd.gain_low == pytest.approx(mean - reach, rel=1e-3)
    assert cirkd.gain_high == pytest.approx(mean + reach, rel=1e-3)
    assert cirkd.gain_is_certain
    assert (cirkd.seeds, kd.seeds) == ((0, 1, 2), (0,))
    assert (ce.gain, kd.gain_low) == (None, None)
    assert cirkd.images_per_s == pytest.approx(2 / 0.25)
    assert (cirkd.store, cirkd.commit) == ("f00d", None)


def test_students_of_another_store_are_a_row_of_their_own(artifacts: Path) -> None:
    path = artifacts / "profiles/tiny/students/cirkd_2/run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"store": "beef"}))
    cirkd, other = (e for e in read_leaderboard(artifacts) if e.method == "CIRKD")
    found = {entry.seeds: (entry.store, entry.gain) for entry in (cirkd, other)}
    assert found == {(0, 1): ("f00d", pytest.approx(0.025)), (2,): ("beef", None)}


def test_a_run_that_is_trained_anew_is_left_out(artifacts: Path) -> None:
    """DVC has removed what the training before left; its figures lie there until the end."""
    (artifacts / "profiles/tiny/students/cirkd_2/run.json").unlink()
    (cirkd,) = (e for e in read_leaderboard(artifacts) if e.method == "CIRKD")
    assert cirkd.seeds == (0, 1)


def test_a_run_that_was_renamed_is_no_second_seed(artifacts: Path) -> None:
    students = artifacts / "profiles/tiny/students"
    shutil.copytree(students / "kd_0", students / "kd_renamed")
    (kd,) = (e for e in read_leaderboard(artifacts) if e.method == "KD")
    assert (kd.seeds, kd.gain_low) == ((0,), None)


@pytest.mark.parametrize(
    ("count", "quantile"), [(2, 12.706), (3, 4.303), (11, 2.228), (31, 2.042), (101, 1.984)]
)
def test_intervals_are_students(count: int, quantile: float) -> None:
    spread = Spread(0.1, 0.02, count)
    assert spread.interval is not None
    low, high = spread.interval
    assert (high - low) / 2 == pytest.approx(quantile * 0.02 / count**0.5, rel=1e-3)


def test_one_seed_has_no_interval() -> None:
    assert Spread(0.1, None, 1).interval is None
    assert not Spread(0.1, None, 1).is_certain


def test_every_form_has_every_row(artifacts: Path) -> None:
    entries = read_leaderboard(artifacts)
    assert Entry(**{**json.loads(as_json(entries))[0], "seeds": (0, 1, 2)}) == entries[0]
    rows = list(csv.DictReader(io.StringIO(as_csv(entries))))
    assert [float(row["miou"]) for row in rows] == pytest.approx([e.miou for e in entries])
    lines = as_markdown(entries).splitlines()
    assert len(lines) == 2 + len(entries)
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}


def test_operations_are_told_where_they_were_counted(artifacts: Path) -> None:
    path = artifacts / "profiles" / "tiny" / "students" / "kd_0" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_flops": 12_345_678_901}))
    cirkd, _, kd = read_leaderboard(artifacts)
    assert (cirkd.num_flops, kd.num_flops) == (None, 12_345_678_901)
    assert as_markdown([kd]).count("| 12.3 G |") == 1


def test_a_gain_within_the_noise_is_marked(
    fabricate: Callable[[dict], tuple[Path, Params]],
) -> None:
    mious = {"ce": (0.50, 0.52), "kd": (0.51, 0.50)}
    students = {
        f"{method}_{seed}": (method, miou, {"seed": seed})
        for method, values in mious.items()
        for seed, miou in enumerate(values)
    }
    profile, _ = fabricate(students)
    entries = read_leaderboard(profile.parent.parent)
    text = as_markdown(entries)
    assert text.count("within noise") == 1
    assert not any(entry.gain_is_certain for entry in entries)


@pytest.mark.parametrize("form", ["", "--csv", "--markdown", "--json"])
def test_the_command_prints_it(form: str, artifacts: Path) -> None:
    options = ["leaderboard", "--artifacts", str(artifacts), *([form] if form else [])]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert "CIRKD" in done.output


def test_nothing_trained_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["leaderboard", "--artifacts", str(tmp_path)])
    assert done.exit_code == 1
    assert "run `dvc repro`" in done.output
