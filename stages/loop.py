"""Follow a training: log, show, save, stop; for the teacher's and for every student's stage."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from torch import Tensor, nn

from pipeline.checkpoint import GlobalChance, Stateful, load_checkpoint, save_checkpoint
from pipeline.loading import LoaderError, naming_dead_workers
from pipeline.optimisation import Optimisation
from pipeline.ranks import ALONE, PerRank, Ranks
from pipeline.recipe import Training
from pipeline.training import NonFiniteTermError, Report, check_finite, check_weights, train
from stages.command import Interruption
from stages.progress import Advance, progress
from store.files import replace_file
from store.lock import Lock

LOG_EVERY = 10
SIGNALS_APART_S = 0.5


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
        kept = [line for line in _read_lines(path) if line["step"] <= start_step]
        text = "".join(json.dumps(line) + "\n" for line in (dict(header), *kept))
        replace_file(path, text.encode())
        self._path, self._step, self._time = path, start_step, time.perf_counter()

    def append(self, report: Report) -> str:
        """Log one step and return its terms in words.

        step_s is the mean of the steps since the last line, the wait for data included.
        """
        terms = {name: float(value) for name, value in report.terms.items()}
        now = time.perf_counter()
        line = {
            "step": report.step,
            "total": float(report.total),
            "learning_rate": report.learning_rate,
            "wait_s": round(report.wait_s, 5),
            "step_s": round((now - self._time) / (report.step - self._step), 5),
            "terms": terms,
        }
        self._step, self._time = report.step, now
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return "  ".join(f"{name} {value:.4f}" for name, value in terms.items())


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The steps of a log; a last line that a kill cut off is left out."""
    lines = []
    for text in path.read_text().splitlines()[1:] if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


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
        name_source: what a batch was made of, in words, for the error of a diverging run.
        ranks: that train together; the first of them logs, shows and saves.
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
    name_source: Callable[[Any], str] = lambda source: ""
    ranks: Ranks = ALONE


def fit(run: Run) -> float:
    """Train to the end and return the seconds it took, interruptions left out.

    SIGTERM and SIGINT save a checkpoint and exit with code 3. A second process on the same work
    folder is refused: a stage may outlive the `dvc repro` that started it.

    Raises:
        StoreLockedError: another process trains this run.
        NonFiniteTermError: the run diverges; nothing that is not finite is kept.
        BatchTooLargeError: a batch does not fit; the message says what would.
        ValueError: the ranks do not see one checkpoint.
    """
    with Lock(run.work) if run.ranks.leads else contextlib.nullcontext():
        return _fit(run)


def _fit(run: Run) -> float:
    recipe, checkpoint, ranks = run.recipe, run.work / "last.pt", run.ranks
    device = next(run.modules.parameters()).device
    optimisation = Optimisation(run.modules, recipe, device)
    stopwatch = Stopwatch()
    parts: dict[str, Stateful] = {
        "modules": run.modules,
        **optimisation.parts,
        "chance": PerRank(GlobalChance(), ranks),
        "stopwatch": stopwatch,
        **run.parts,
    }
    start = load_checkpoint(checkpoint, parts)
    if len(found := set(ranks.collect(start))) > 1:
        raise ValueError(
            f"{checkpoint}: ranks go on from different steps, {sorted(found)}; expected one. Put "
            "the working folder on a disk that all machines share, or delete the file everywhere"
        )
    if start == 0:
        run.begin()
    log = RunLog(run.work / "log.jsonl", run.header, start) if ranks.leads else None
    batches = run.open_batches(range(start, recipe.steps))
    reports = train(
        run.compute_terms,
        run.weights,
        batches,
        optimisation,
        start_step=start,
        accumulate=recipe.accumulate,
    )
    note, unchecked = "", []
    with Interruption() as stop, _shown(run, start) as advance, _saying_what_is_kept(run, stop):
        for report in reports:
            unchecked.append(report)
            last = report.step == recipe.steps
            logs = last or report.step == 1 or report.step % LOG_EVERY == 0
            # Ranks stop at the same step; alone there is no one to wait for.
            stops = ranks.agree(stop.requested) if logs or ranks.size == 1 else False
            saves = last or stops or report.step % recipe.checkpoint_every == 0
            if saves or logs:
                check_finite(unchecked, run.title, run.name_source)
                unchecked.clear()
            if logs and log is not None:
                note = log.append(report)
            advance(1, note)
            if saves:
                check_weights(run.modules, run.title, report.step)
                save_checkpoint(checkpoint, report.step, parts, writes=ranks.leads)
            if stops and not last:
                stop.exit(f"{run.title} is kept at step {report.step}")
    optimisation.finish()
    return round(stopwatch.seconds, 2)


def _shown(run: Run, start: int) -> contextlib.AbstractContextManager[Advance]:
    if run.ranks.leads:
        return progress(run.title, run.recipe.steps, "steps", start)
    return contextlib.nullcontext(lambda count=1, note="": None)


@contextlib.contextmanager
def _saying_what_is_kept(run: Run, stop: Interruption) -> Iterator[None]:
    """Whatever ends a training, its last checkpoint is whole: say so beside the error."""
    try:
        with naming_dead_workers():
            yield
    except Exception as error:
        kept = run.work / "last.pt"
        if isinstance(error, LoaderError):
            # Some managers (Slurm's scancel, say) signal every process, and not in one moment.
            time.sleep(SIGNALS_APART_S)
            if stop.requested:
                stop.exit(f"{run.title} is kept at its last checkpoint, if it has one")
        if run.ranks.leads and kept.exists():
            same = isinstance(error, NonFiniteTermError)  # the same steps would end the same
            goes_on = "the last checkpoint before is" if same else "the same command goes on from"
            click.echo(f"{run.title}: {goes_on} {kept}", err=True)
        raise
