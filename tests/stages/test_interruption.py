"""Ctrl-C: once finishes and keeps, twice ends at once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.command import Interruption

ROOT = Path(__file__).parents[2]
FOR_EVER = """
import time
from stages import command
command.SAME_WITHIN_S = 0
with command.Interruption() as stop:
    print("begun", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("asked to stop", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    command = [sys.executable, "-c", FOR_EVER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in ("begun\n", "asked to stop\n"):
                assert process.stdout.readline() == line
                process.send_signal(number)
            assert process.wait(30) == -number
        finally:
            process.kill()


def test_one_interruption_may_send_several_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.command.SAME_WITHIN_S", 60)
    with Interruption() as stop:
        assert stop.keep_going()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert not stop.keep_going()
