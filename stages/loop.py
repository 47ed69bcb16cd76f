"""Follow a training: log, show, save, stop; for the teacher's and for every student's stage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.checkpoint import GlobalChance, Stateful, load_checkpoint, save_checkpoint
from pipeline.params import Training
from pipeline.training import Report, build_optimizer, build_schedule, check_finite, train
from stages.command import Interruption
from stages.progress import progress

LOG_EVERY = 10


class Stopwatch:
    """Seconds a run has taken so far, across interruptions."""

    def __init__(self) -> None:
        self._before, self._start = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Before the last interruption, and since."""
        return self._before + time.perf_counter() - self._start

    def state_dict(self) -> dict[str, float]:
        """The seconds."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on counting from there."""
        self._before, self._start = state["seconds"], time.perf_counter()


class RunLog:
    """A JSONL file: a header with all that repeats the run, then a line per logged step."""

    def __init__(self, path: Path, header: Mapping[str, Any], start_step: int) -> None:
        """Keep what was logged up to `start_step`, drop what a killed run logged after it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = path.read_text().splitlines()[1:] if path.exists() and start_step else []
        kept = [
            line for line in kept if line.endswith("}") and json.loads(line)["step"] <= start_step
        ]
        path.write_text("\n".join([json.dumps(dict(header)), *kept]) + "\n")
        self.path = path

    def append(self, report: Report, title: str) -> str:
        """Log one step, if it is finite, and return its terms in words."""
        check_finite(report, title)
        terms = {name: float(value) for name, value in report.terms.items()}
        line = {
            "step": report.step,
            "total": float(report.total),
            "learning_rate": report.learning_rate,
            "wait_s": round(report.wait_s, 5),
            "step_s": round(report.step_s, 5),
            "terms": terms,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return "  ".join(f"{name} {value:.4f}" for name, value in terms.items())


@dataclass(frozen=True)
class Run:
    """A training to take from its checkpoint, or from the start, to its end.

    Attributes:
        title: shown and named in errors.
        recipe: steps, optimizer, schedule.
        modules: everything with parameters to optimise.
        parts: what else a checkpoint must hold.
        compute_terms: maps a batch to its terms.
        weights: of the terms.
        open_batches: the batches of the given steps.
        begin: called before step 1, and only then.
        work: folder of the checkpoint and the log, until the stage is done.
        header: first line of the log; everything needed to repeat the run.
    """

    title: str
    recipe: Training
    modules: nn.Module
    parts: Mapping[str, Stateful]
    compute_terms: Callable[[Any], Mapping[str, Tensor]]
    weights: Mapping[str, float]
    open_batches: Callable[[range], Iterable[Any]]
    begin: Callable[[], None]
    work: Path
    header: Mapping[str, Any]


def fit(run: Run) -> float:
    """Train to the end and return the seconds it took, interruptions left out.

    SIGTERM and SIGINT save a checkpoint and exit with code 3.
    """
    recipe, checkpoint = run.recipe, run.work / "last.pt"
    optimizer = build_optimizer(run.modules, recipe)
    schedule = build_schedule(optimizer, recipe)
    stopwatch = Stopwatch()
    parts: dict[str, Stateful] = {
        "modules": run.modules,
        "optimizer": optimizer,
        "schedule": schedule,
        "chance": GlobalChance(),
        "stopwatch": stopwatch,
        **run.parts,
    }
    start = load_checkpoint(checkpoint, parts)
    if start == 0:
        run.begin()
    log = RunLog(run.work / "log.jsonl", run.header, start)
    batches = run.open_batches(range(start, recipe.steps))
    reports = train(run.compute_terms, run.weights, batches, optimizer, schedule, start_step=start)
    with Interruption() as stop, progress(run.title, recipe.steps, "steps", start) as advance:
        for report in reports:
            last = report.step == recipe.steps
            note = ""
            if last or report.step % LOG_EVERY == 0 or report.step == 1:
                note = log.append(report, run.title)
            advance(1, note)
            if not last and (stop.requested or report.step % recipe.checkpoint_every == 0):
                check_finite(report, run.title)
                save_checkpoint(checkpoint, report.step, parts)
                stop.exit_if_requested(f"{run.title} is kept at step {report.step}")
    return round(stopwatch.seconds, 2)
