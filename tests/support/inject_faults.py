"""Fail, or kill, a stage at each of its file operations; run as a script.

    python inject_faults.py FOLDER LIMIT SEED

FOLDER holds a params.yaml of tiny networks, and gets the artifacts. Every stage is run undisturbed
first, which counts its file operations below FOLDER (open, write, sync, rename, remove, folders).
Then, from the same start, it runs once for each operation and fault (no space, a broken disk, no
permission, SIGKILL), or for LIMIT of these pairs, drawn with SEED: it must say what is wrong, or be
dead, and the same command, undisturbed, must leave the same bytes.

Every run is a fork of this process, which has imported torch once.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from pipeline.config.architectures import ARCHITECTURES, Architecture
from stages import cli

FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, "SIGKILL": 0}
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.listdir"}
EVENTS |= {"os.scandir", "os.truncate"}
TIMES = {"seconds", "peak_memory_bytes", "time", "wait_s", "step_s", "images_per_s"}
INDEX, TEACHER = "artifacts/datasets/tiny/index.json", "artifacts/teachers/tiny.pt"
MANIFEST, PROFILE = "artifacts/manifests/tiny.json", "artifacts/profiles/tiny"
JOB = [INDEX, TEACHER, MANIFEST]
STAGES = {
    "fingerprint": ["fingerprint", "artifacts/fingerprint.json", "artifacts/weights.json"],
    "prepare": ["prepare", "artifacts/fingerprint.json", "artifacts/datasets/tiny"],
    "teacher": ["teacher", INDEX, TEACHER, "--workers", "0"],
    "extract": ["extract", *JOB],
    "audit": ["audit", *JOB, "artifacts/manifests/tiny.audit.json"],
    **{
        f"train {run}": ["train", run, MANIFEST, f"{PROFILE}/students/{run}", "--workers", "0"]
        for run in ("r18_ce", "r18_cirkd")
    },
    **{
        f"evaluate {run}": ["evaluate", INDEX, *(f"{PROFILE}/students/{run}/{x}" for x in files)]
        for run in ("r18_ce", "r18_cirkd")
        for files in [("model.pt", "evaluation.json")]
    },
    "report": ["report", PROFILE],
}


class Operations:
    """Counts this process's file operations below a folder, and lets one of them fail."""

    def __init__(self, folder: Path, failing: int | None, fault: str) -> None:
        self.count, self._failing, self._fault = 0, failing, fault
        self._below = f"{folder}/artifacts"

    def install(self) -> None:
        """Watch this process from now on, to its end."""
        sys.addaudithook(self._audit)
        os.fsync = self._syncing(os.fsync)
        builtins.open = io.open = self._opening(io.open)  # type: ignore[assignment]

    def next(self, name: object) -> None:
        """Count one operation; it may be the one that fails."""
        self.count += 1
        if self.count - 1 != self._failing:
            return
        if self._fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        code = FAULTS[self._fault]
        raise OSError(code, os.strerror(code), str(name))

    def concerns(self, path: object) -> bool:
        """Tell whether a path lies below the folder."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self._below)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and arguments and self.concerns(arguments[0]):
            self.next(arguments[0])

    def _syncing(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def counted(descriptor: int) -> None:
            self.next(os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        return counted

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        operations = self

        class Writing(io.BufferedWriter):
            """A file that ends in the middle of a write when that one fails."""

            def write(self, content: Any) -> int:
                try:
                    operations.next(self.name)
                except OSError:
                    view = memoryview(content).cast("B")
                    super().write(view[: len(view) // 2])
                    raise
                return super().write(content)

        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            writes = set(mode) & set("wax") and "+" not in mode
            if not (writes and operations.concerns(file)):
                return real(file, mode, *arguments, **options)
            binary = Writing(io.FileIO(file, mode.replace("b", "").replace("t", "")))
            return binary if "b" in mode else io.TextIOWrapper(binary, encoding="utf-8")

        return opened


def run(folder: Path, stage: str, failing: int | None = None, fault: str = "") -> tuple[int, str]:
    """Run a stage in a fork: its exit code (minus a signal's number), and its stderr or count."""
    output = folder / "output.txt"
    child = os.fork()
    if child == 0:
        _be_the_stage(folder, stage, failing, fault, output)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")


def _be_the_stage(folder: Path, stage: str, failing: int | None, fault: str, output: Path) -> None:
    code: Any = 70
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    operations = Operations(folder, failing, fault)
    try:
        os.chdir(folder)
        operations.install()
        cli.main(STAGES[stage])
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    if failing is None:
        os.write(1, f"\n{operations.count}".encode())
    os._exit(code)


def contents(folder: Path) -> dict[str, Any]:
    """Return what every artifact says, times and the names of lock holders left out."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "artifacts").rglob("*")):
        if path.is_file() and path.name != "lock" and path.suffix != ".partial":
            found[str(path.relative_to(folder))] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".html":
        return path.stat().st_size > 0  # seconds are in its tables
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(x) for name, x in value.items() if name not in TIMES}
    return [_timeless(x) for x in value] if isinstance(value, list) else value


def restore(folder: Path, before: Path) -> None:
    """Put the artifacts back as they were before the stage."""
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    shutil.copytree(before, folder / "artifacts")


def check(folder: Path, before: Path, stage: str, failing: int, fault: str, wanted: Any) -> None:
    """Disturb a stage once, and hold the law."""
    restore(folder, before)
    where = f"{stage}, operation {failing}, {fault}"
    code, said = run(folder, stage, failing, fault)
    assert "Traceback" not in said, f"{where}: {said}"
    if fault == "SIGKILL":
        assert code in (0, -signal.SIGKILL), f"{where}: {code}: {said}"
    elif code:
        assert code == 1, f"{where}: {code}: {said}"
        assert "Error: " in said, f"{where}: {said}"
    if code == 0:
        assert contents(folder) == wanted, f"{where}: done, and differs"
        return
    code, said = run(folder, stage)
    assert code == 0, f"{where}: the same command afterwards: {said}"
    found = contents(folder)
    differs = {name for name in {*found, *wanted} if found.get(name) != wanted.get(name)}
    assert not differs, f"{where}: the same command afterwards leaves others: {sorted(differs)}"


def main(folder: Path, limit: int, seed: int) -> None:
    """Count every stage's operations, and disturb them."""
    ARCHITECTURES["tiny_teacher"] = Architecture("Tiny", "tiny_networks:tiny_teacher", "")
    ARCHITECTURES["tiny_student"] = Architecture("Tiny", "tiny_networks:tiny_student", "")
    torch.set_num_threads(1)
    for arguments in STAGES.values():
        import_module(f"stages.{arguments[0]}")  # once for all forks
    pairs, wanted = [], {}
    (folder / "artifacts").mkdir()
    for number, stage in enumerate(STAGES):
        before = folder / f"before-{number}"
        shutil.copytree(folder / "artifacts", before)
        code, said = run(folder, stage)
        assert code == 0, f"{stage}: {said}"
        wanted[stage] = contents(folder)
        operations = int(said.splitlines()[-1])
        print(f"{stage}: {operations} file operations", flush=True)
        pairs.append([(before, stage, x, fault) for x in range(operations) for fault in FAULTS])
    rng, broken = random.Random(seed), []
    drawn = [rng.sample(of_stage, len(of_stage)) for of_stage in pairs]
    # Stages in turn, so that those of few operations are disturbed as often as the others.
    turns = [pair for turn in zip_longest(*drawn) for pair in turn if pair is not None]
    for before, stage, failing, fault in turns[:limit]:
        try:
            check(folder, before, stage, failing, fault, wanted[stage])
        except AssertionError as error:
            broken.append(str(error))
            print(f"BROKEN {error}", flush=True)
    print(f"{len(turns[:limit])} faults of {len(turns)}, {len(broken)} broken")
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))
