"""Many trainings over one store at once: each a `dvc repro` of its own, a slot of a device each."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from types import MappingProxyType

import click

from pipeline.config.params import load_params
from pipeline.config.weights import hash_weights_files
from stages.command import EXIT_INTERRUPTED, Interruption, prepare_dvc
from stages.progress import is_quiet
from stages.work import WORK, remove_recorded
from store.files import write_json

POLL_S = 0.5
TAIL_LINES = 5


@dataclass(frozen=True)
class Done:
    """How a training ended.

    Attributes:
        run: its name.
        code: its exit code; None if an interruption came before its end.
        log: all it printed.
    """

    run: str
    code: int | None
    log: Path

    def __str__(self) -> str:
        if self.code is None:
            return f"{self.run}: not done"
        if self.code == 0:
            return f"{self.run}: done"
        tail = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n    ".join([f"{self.run}: exit code {self.code}, all of it in {self.log}", *tail])


def train_all(
    runs: Sequence[str],
    num_jobs: int,
    devices: Sequence[str],
    options: Mapping[str, str] = MappingProxyType({}),
) -> list[Done]:
    """Bring every run up to date, `num_jobs` at a time; one that fails stops no other.

    Each is `dvc repro -s train@RUN`, so what is up to date is not trained again, and a later
    `dvc repro` knows what was trained here. All of them read one store, through one page cache.

    Args:
        runs: names of students.
        num_jobs: how many train at a time.
        devices: dealt out to the jobs in turn; on a CPU the jobs share its cores evenly.
        options: of every training, by their environment variables: DVC passes no others on.
    """
    command, environment = prepare_dvc()
    # As the first stage does, which `dvc repro -s` leaves out.
    write_json(hash_weights_files(load_params()), Path("artifacts/weights.json"))
    WORK.mkdir(parents=True, exist_ok=True)
    slots: Queue[str] = Queue()
    for job in range(num_jobs):
        slots.put(devices[job % len(devices)])

    def train(run: str) -> Done:
        log = WORK / f"train-{run}.log"
        if stop.requested:
            return Done(run, None, log)
        device = slots.get()
        cores = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_jobs))}
        own = {"CIRKD_DEVICE": device, **(cores if device == "cpu" else {})}
        try:
            own_environment = {**environment, **options, **own}
            code = _run([*command, "repro", "-s", f"train@{run}"], own_environment, log, stop)
        finally:
            slots.put(device)
        done = Done(run, None if code and stop.requested else code, log)
        if code or not is_quiet():
            click.echo(done)
        return done

    with Interruption() as stop, ThreadPoolExecutor(num_jobs) as pool:
        done = list(pool.map(train, runs))
    remove_recorded()
    return done


def exit_code(done: Sequence[Done]) -> int:
    """Return 0 if every training is done, 3 if one waits to go on, else 1."""
    codes = {one.code for one in done}
    if codes <= {0}:
        return 0
    return EXIT_INTERRUPTED if None in codes else 1


def _run(command: list[str], environment: dict[str, str], log: Path, stop: Interruption) -> int:
    """Run a command in a group of its own; an interruption reaches every process of it."""
    with log.open("w") as file:
        running = subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        told = False
        while True:
            try:
                return running.wait(POLL_S)
            except subprocess.TimeoutExpired:
                if stop.requested and not told:
                    os.killpg(running.pid, signal.SIGTERM)
                    told = True
