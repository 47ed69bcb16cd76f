"""The whole route: `dvc repro` from images to a report, and what a second run costs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.config.params import load_params, load_profile
from stages.cli import main

ROOT = Path(__file__).parents[1]


def repro(folder: Path, *arguments: str) -> str:
    """Run `cirkd repro` (which is `dvc repro` with PATH in order) and return what it printed."""
    command = [sys.executable, "-m", "stages.repro", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder), "CIRKD_WORKERS": "0"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_project(folder: Path) -> Path:
    """The tracked files alone, as an unpacked archive has them: no .git, no artifacts."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def use_profile(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    chosen = CliRunner().invoke(main, ["profile", "use", name])
    assert chosen.exit_code == 0, chosen.output


def cirkd(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def work_on_the_store(folder: Path) -> None:
    """Spot check, damage, repair, and three workers instead of one, with the real teacher."""
    index, teacher = "artifacts/datasets/tiny/index.json", "artifacts/teachers/tiny.pt"
    manifest = folder / "artifacts/manifests/tiny.json"
    before = json.loads(manifest.read_text())
    spot = ["--spot", "3", "--index", index, "--teacher", teacher, "--json"]
    whole = cirkd(folder, "store", "verify", str(manifest), *spot)
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["fidelity"]["images_equal"] == 1
    (folder / before["path"] / "logits/c.1.0.0.0").unlink()
    for damaged in ("zarr.json", "features/zarr.json"):
        (folder / before["path"] / damaged).write_text("{")
    assert cirkd(folder, "store", "verify", str(manifest)).returncode == 1
    repaired = cirkd(folder, "store", "repair", index, teacher, str(manifest))
    assert "1 units extracted again" in repaired.stdout, repaired.stderr
    assert cirkd(folder, "store", "verify", str(manifest)).stdout == "whole\n"
    many = ["--workers", "3", "--stores", "elsewhere"]
    done = cirkd(folder, "extract", index, teacher, "many.json", *many)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "many.json").read_text())["digest"] == before["digest"]
    planned = cirkd(folder, "store", "plan", "r18_cirkd", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["num_records"] == before["num_records"]


def overwrite_weights(folder: Path) -> None:
    """A file that params.yaml names changes what hangs on it, and no other student."""
    params, weights = folder / "params.yaml", folder / "encoder.pt"
    before = params.read_text()
    given = "resnet18, encoder_weights: encoder.pt, method: ce"
    params.write_text(before.replace("resnet18, method: ce", given))
    digests = []
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        repro(folder, "-s", "fingerprint")
        digests.append(json.loads((folder / "artifacts/weights.json").read_text()))
    assert digests[0]["students"]["r18_ce"] != digests[1]["students"]["r18_ce"]
    dvc = [sys.executable, "-m", "dvc", "status", "--json"]
    told = subprocess.run(dvc, cwd=folder, capture_output=True, text=True, check=True)
    changed = {
        stage: entry["changed deps"]["artifacts/weights.json"]
        for stage, entries in json.loads(told.stdout).items()
        for entry in entries
        if isinstance(entry, dict) and "artifacts/weights.json" in entry.get("changed deps", ())
    }
    assert changed == {"train@r18_ce": {"students.r18_ce": "modified"}}
    params.write_text(before)
    repro(folder, "-s", "fingerprint")


def draw_plots(folder: Path) -> None:
    """DVC shows the figures of the report and draws its files: every plot of every student."""

    def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)

    drawn = json.loads(dvc("plots", "show", "--json").stdout)
    assert not drawn.get("errors")
    plots = "artifacts/profiles/tiny/plots"
    kinds = {"curves": "json", "classes": "json", "confusion": "csv"}
    runs = ("r18_ce", "r18_cirkd")
    expected = {f"{plots}/{kind}/{run}.{kinds[kind]}" for kind in kinds for run in runs}
    assert drawn["data"].keys() == expected
    for path, (plot,) in drawn["data"].items():
        assert plot["content"]["data"]["values"], path
    dvc("plots", "show")
    assert (folder / "dvc_plots/index.html").is_file()
    (found,) = json.loads(dvc("metrics", "show", "--json").stdout)[""]["data"].values()
    assert set(found["data"]["students"]) == set(runs)


def train_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every student at once, one of which diverges and stops no other."""
    profile = folder / "profiles/tiny.yaml"
    students = profile.read_text()
    training = "training: {learning_rate: 1.0e+30}"
    line = f"  a_broken: {{architecture: deeplabv3_resnet18, method: ce, seed: 0, {training}}}\n"
    profile.write_text(students.replace("students:\n", "students:\n" + line))
    use_profile(folder, "tiny", monkeypatch)
    profile.write_text(students)
    done = cirkd(folder, "train", "--all", "--jobs", "2")
    assert done.returncode == 1, done.stderr
    ended = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line[0] != " ")
    assert {run for run, how in ended.items() if how == "done"} == {
        "r18_ce",
        "r18_cirkd",
        "mbv2_cirkd",
    }
    assert ended["a_broken"].startswith("exit code")
    assert "term task is" in (folder / "artifacts/work/train-a_broken.log").read_text()


@pytest.mark.slow
def test_the_route_runs_once_and_then_costs_nothing(tmp_path, monkeypatch) -> None:
    folder = copy_project(tmp_path / "project")
    use_profile(folder, "tiny", monkeypatch)
    first = repro(folder)
    stages = ["fingerprint", "prepare", "teacher", "extract", "audit", "train@r18_ce"]
    stages += ["train@r18_cirkd", "evaluate@r18_ce", "evaluate@r18_cirkd", "report"]
    for stage in stages:
        assert f"Running stage '{stage}'" in first, stage
    profile = folder / "artifacts/profiles/tiny"
    metrics = json.loads((profile / "metrics.json").read_text())
    assert set(metrics) == {"teacher", "students", "store"}
    assert set(metrics["students"]) == {"r18_ce", "r18_cirkd"}
    assert metrics["store"]["records"] == 6
    assert "<html" in (profile / "report/index.html").read_text()
    assert not list((folder / "artifacts/work").iterdir())

    second = repro(folder)
    running = [line for line in second.splitlines() if line.startswith("Running stage")]
    assert running == ["Running stage 'fingerprint':"]

    draw_plots(folder)
    overwrite_weights(folder)
    work_on_the_store(folder)

    # Another student, and nothing of what stands is done again.
    tiny = (folder / "profiles/tiny.yaml").read_text()
    line = "  mbv2_cirkd: {architecture: deeplabv3_mobilenet_v2, method: cirkd, seed: 0}\n"
    (folder / "profiles/tiny.yaml").write_text(tiny + line)
    train_side_by_side(folder, monkeypatch)
    use_profile(folder, "tiny", monkeypatch)
    third = repro(folder)
    running = [line for line in third.splitlines() if line.startswith("Running stage")]
    names = ["fingerprint", "evaluate@mbv2_cirkd", "report"]
    assert running == [f"Running stage '{name}':" for name in names]

    # Away to a profile with a dataset, teacher and store of its own, and back.
    metrics = json.loads((profile / "metrics.json").read_text())
    other = tiny.replace(": tiny", ": other").replace("seed: 0", "seed: 1")
    (folder / "profiles/other.yaml").write_text(other)
    use_profile(folder, "other", monkeypatch)
    assert "Running stage 'teacher'" in repro(folder)
    use_profile(folder, "tiny", monkeypatch)
    fifth = repro(folder)
    running = [line for line in fifth.splitlines() if line.startswith("Running stage")]
    assert running == ["Running stage 'fingerprint':"]
    assert json.loads((profile / "metrics.json").read_text()) == metrics


def test_a_profile_is_chosen_listed_and_shown(tmp_path, monkeypatch) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    chosen = run(main, ["profile", "use", "camvid", "--root", "here"])
    assert chosen.exit_code == 0, chosen.output
    params = load_params("params.yaml")
    assert params.dataset.root == str(tmp_path / "here")
    assert params.store == load_profile(Path("profiles/camvid.yaml")).store
    assert "* camvid " in run(main, ["profile", "list"]).output
    shown = YAML(typ="safe").load(run(main, ["profile", "show"]).output)
    assert shown == json.loads(run(main, ["profile", "show", "--json"]).output)
    listed = json.loads(run(main, ["profile", "list", "--json"]).output)
    assert [one["name"] for one in listed if one["chosen"]] == ["camvid"]
    assert shown["profile"] == "camvid"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["profile", "use", "nothing"], "expected one of"),
        (["profile", "use", "scenes", "--root", "elsewhere"], "generates its dataset"),
        (["audit", "i.json", "t.pt", "absent.json", "out.json"], "absent.json"),
        (["prepare", "absent.json", "out"], "params.yaml"),
        (["repro"], "no dvc.yaml"),
    ],
)
def test_a_mistake_is_a_message(arguments, expected, tmp_path, monkeypatch) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert expected in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "params.yaml").exists()
