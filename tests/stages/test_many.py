"""Many trainings at once: how they end together."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from zc.lockfile import LockError, LockFile

from stages import many
from stages.command import EXIT_INTERRUPTED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("interrupted", "expected"), [(False, 1), (True, EXIT_INTERRUPTED)])
def test_an_interrupted_training_waits_to_go_on_and_a_failed_one_does_not(
    interrupted: bool, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run has begun when the signal comes; dvc ends with a code of its own."""

    def run(command: list[str], *rest: object) -> int:
        if interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
        log = rest[1]
        assert isinstance(log, Path)
        log.write_text("ended")
        return 255

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(many, "prepare_dvc", lambda: (["dvc"], {}))
    shutil.copy(ROOT / "profiles/tiny.yaml", "params.yaml")
    monkeypatch.setattr(many, "_run", run)
    done = many.train_all(["one", "two"], 2, ["cpu"])
    assert many.exit_code(done) == expected


def test_devices_are_dealt_out_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(command: list[str], environment: dict[str, str], *rest: object) -> int:
        seen.append((command[-1], environment["CIRKD_DEVICE"]))
        assert environment.get("CIRKD_WORKERS") == options.get("CIRKD_WORKERS")
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(many, "prepare_dvc", lambda: (["dvc"], {}))
    shutil.copy(ROOT / "profiles/tiny.yaml", "params.yaml")
    monkeypatch.setattr(many, "_run", run)
    options: dict[str, str] = {}
    many.train_all(["one", "two", "three"], 1, ["cuda:0", "cuda:1"])
    assert seen == [(f"train@{name}", "cuda:0") for name in ("one", "two", "three")]
    seen.clear()
    options = {"CIRKD_WORKERS": "3"}
    many.train_all(["one", "two", "three", "four"], 4, ["cuda:0", "cuda:1"], options)
    assert sorted(device for _, device in seen) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


@pytest.mark.slow
def test_trainings_wait_for_dvcs_lock_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command of DVC holds it for longer than DVC waits by itself, time and again."""
    monkeypatch.chdir(tmp_path)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    runs = ["one", "two", "three", "four"]
    shutil.copyfile(ROOT / "profiles/tiny.yaml", "params.yaml")
    command = "echo ${item} >> trained && sleep 1 && echo ${item} > ${item}.pt"
    Path("dvc.yaml").write_text(
        "stages:\n  train:\n    foreach: [" + ", ".join(runs) + "]\n    do:\n"
        f"      cmd: {command}\n      outs: ['${{item}}.pt']\n"
    )
    ended = threading.Event()

    def hold() -> None:
        while not ended.is_set():
            with suppress(LockError):
                lock = LockFile(".dvc/tmp/lock")
                ended.wait(4)
                lock.close()
            ended.wait(1)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        done = many.train_all(runs, 4, ["cpu"])
    finally:
        ended.set()
        holder.join()
    assert [str(one) for one in done] == [f"{run}: done" for run in runs]
    assert sorted(Path("trained").read_text().split()) == sorted(runs)
    status = subprocess.run([*dvc, "status"], capture_output=True, text=True, check=True)
    assert "up to date" in status.stdout
