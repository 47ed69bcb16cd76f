"""The log of a training: a JSONL file that survives interruptions."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.training.steps import StepResult
from pipeline.training.tensorboard import WriteScalars
from store.files import replace_file


class RunLog:
    """A JSONL file: a header with all that repeats the run, then a line per logged step."""

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        start_step: int,
        write_scalars: WriteScalars = lambda line: None,
    ) -> None:
        """Keep what was logged up to `start_step`, drop what a killed run logged after it.

        Args:
            path: the file.
            header: its first line.
            start_step: steps done.
            write_scalars: gets every line, too.
        """
        kept = [line for line in _read_lines(path) if line["step"] <= start_step]
        text = "".join(json.dumps(line) + "\n" for line in (dict(header), *kept))
        replace_file(path, text.encode())
        self._path, self._step, self._time = path, start_step, time.perf_counter()
        self._write_scalars = write_scalars

    def append(self, result: StepResult) -> str:
        """Log one step and return its terms in words.

        step_s is the mean of the steps since the last line, the wait for data included.
        """
        terms = {name: float(value) for name, value in result.terms.items()}
        now = time.perf_counter()
        line = {
            "step": result.step,
            "total": float(result.total),
            "learning_rate": result.learning_rate,
            "wait_s": round(result.wait_s, 5),
            "step_s": round((now - self._time) / (result.step - self._step), 5),
            "terms": terms,
        }
        self._step, self._time = result.step, now
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._write_scalars(line)
        return "  ".join(f"{name} {value:.4f}" for name, value in terms.items())


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The steps of a log; a last line that a kill cut off is left out."""
    lines = []
    for text in path.read_text().splitlines()[1:] if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines
