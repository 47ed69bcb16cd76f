"""One training from its checkpoint, or from the start, to its end: logged, saved, stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.base import BaseConfig
from pipeline.config.training import TrainingConfig
from pipeline.loading.workers import LoaderError, name_dead_workers
from pipeline.runtime.checkpoint import GlobalRng, Stateful, load_checkpoint, save_checkpoint
from pipeline.runtime.device import tf32_convolutions
from pipeline.runtime.distributed import SINGLE_PROCESS, PerRank, Ranks
from pipeline.runtime.environment import commit, describe_device, versions
from pipeline.training.log import RunLog
from pipeline.training.optimizer import Optimisation
from pipeline.training.steps import (
    ComputeTerms,
    NonFiniteTermError,
    StepResult,
    check_finite,
    check_weights,
    train,
)
from pipeline.training.tensorboard import open_scalars
from store.lock import Lock

LOG_EVERY = 10
STOP_WITHIN_S = 5.0
SIGNALS_APART_S = 0.5
AHEAD_BYTES = 2 * 10**9

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, the terms in words)."""


@dataclass(frozen=True)
class Resources:
    """What a training may use; nothing of it changes a result on the same kind of device.

    Attributes:
        work: folder of the checkpoint and the log, until the stage is done.
        num_workers: processes that read ahead.
        ahead_bytes: host memory that batches may take on their way.
        ranks: that train together; the first of them logs, shows and saves.
        tensorboard: folder that gets what is logged for TensorBoard, too.
    """

    work: Path
    num_workers: int = 0
    ahead_bytes: int = AHEAD_BYTES
    ranks: Ranks = SINGLE_PROCESS
    tensorboard: Path | None = None


@dataclass(frozen=True)
class TrainingRun:
    """A training to take from its checkpoint, or from the start, to its end.

    Attributes:
        title: shown and named in errors.
        training: steps, optimizer, schedule.
        modules: everything with parameters to optimise.
        parts: what else a checkpoint must hold.
        compute_terms: maps a batch to its terms.
        weights: of the terms.
        open_batches: the batches of the given steps, of the class that `compute_terms` takes.
        begin: seeds what is drawn; called at every start, before a checkpoint is put back.
        work: folder of the checkpoint and the log, until the stage is done.
        header: first line of the log, JSON values; everything needed to repeat the run.
        name_source: what a batch was made of, in words, for the error of a diverging run.
        ranks: that train together; the first of them logs, shows and saves.
        tensorboard: folder that gets what is logged for TensorBoard, too.
    """

    title: str
    training: TrainingConfig
    modules: nn.Module
    parts: Mapping[str, Stateful]
    compute_terms: ComputeTerms
    weights: Mapping[str, float]
    open_batches: Callable[[range], Iterable[Any]]
    begin: Callable[[], None]
    work: Path
    header: Mapping[str, Any]
    name_source: Callable[[Any], str] = lambda source: ""
    ranks: Ranks = SINGLE_PROCESS
    tensorboard: Path | None = None

    @property
    def checkpoint(self) -> Path:
        """Return the file that an unfinished training goes on from."""
        return self.work / "last.pt"


class Stopwatch:
    """Seconds a run has taken so far, across interruptions."""

    def __init__(self) -> None:
        self._before, self._start = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Return the seconds before the last interruption, and since."""
        return self._before + time.perf_counter() - self._start

    def state_dict(self) -> dict[str, float]:
        """Return the seconds."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on counting from there."""
        self._before, self._start = state["seconds"], time.perf_counter()


def describe_run(
    settings: BaseConfig, device: torch.device, precision_cost: float | None
) -> dict[str, Any]:
    """Return what every log's header holds: the settings, and what they were trained on."""
    return {
        "device": str(device),
        "hardware": describe_device(device),
        "versions": versions(),
        "commit": commit(),
        "precision_cost": precision_cost,
        "params": settings.model_dump(mode="json"),
    }


def run_training(
    run: TrainingRun,
    progress: Progress = lambda done, total, note: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> float | None:
    """Train to the end, from the checkpoint if there is one.

    A second process on the same work folder is refused: a stage may outlive the `dvc repro` that
    started it.

    Args:
        run: what to train.
        progress: called before the first step and after each; on the first rank alone.
        keep_going: asked after each step; after False a checkpoint is saved.

    Returns:
        The seconds it took, interruptions left out; None if it was told to stop before its end.

    Raises:
        StoreLockedError: another process trains this run.
        NonFiniteTermError: the run diverges; nothing that is not finite is kept.
        BatchTooLargeError: a batch does not fit; the message says what would.
        ValueError: the ranks do not see one checkpoint.
    """
    with Lock(run.work) if run.ranks.is_main else nullcontext():
        stopwatch = Stopwatch()
        try:
            # Also of workers reported while an error is on its way here. Trained weights, unlike
            # what is stored, need no exact convolutions.
            with name_dead_workers(), tf32_convolutions():
                whole = _train(run, stopwatch, progress, keep_going)
        except LoaderError:
            # Some managers (Slurm's scancel, say) signal every process, and not in one moment; and
            # torch may report another dead worker meanwhile.
            with suppress(LoaderError), name_dead_workers():
                time.sleep(SIGNALS_APART_S)
            if keep_going():
                raise
            whole = False
    return round(stopwatch.seconds, 2) if whole else None


def _train(
    run: TrainingRun, stopwatch: Stopwatch, progress: Progress, keep_going: Callable[[], bool]
) -> bool:
    """Take the steps that are left; whether none is left now."""
    device = next(run.modules.parameters()).device
    optimisation = Optimisation(run.modules, run.training, device)
    parts: dict[str, Stateful] = {
        "modules": run.modules,
        **optimisation.parts,
        "rng": PerRank(GlobalRng(device), run.ranks),
        "stopwatch": stopwatch,
        **run.parts,
    }
    start = _resume(run, parts)
    if run.ranks.is_main:
        progress(start, run.training.steps, "")
    results = train(
        run.compute_terms,
        run.weights,
        run.open_batches(range(start, run.training.steps)),
        optimisation,
        start_step=start,
        accumulate=run.training.accumulate,
    )
    is_main = run.ranks.is_main
    with (
        open_scalars(run.tensorboard if is_main else None, start) as write_scalars,
        _name_checkpoint_on_error(run),
        name_dead_workers(),
    ):
        path = run.work / "log.jsonl"
        log = RunLog(path, run.header, start, write_scalars) if is_main else None
        whole = _follow(run, results, parts, log, progress, keep_going)
    if whole:
        optimisation.finish()
    return whole


def _resume(run: TrainingRun, parts: Mapping[str, Stateful]) -> int:
    """Begin, and put the checkpoint back where there is one; the steps done before."""
    run.begin()
    start = load_checkpoint(run.checkpoint, parts)
    if len(found := set(run.ranks.collect(start))) > 1:
        raise ValueError(
            f"{run.checkpoint}: ranks go on from different steps, {sorted(found)}; expected one. "
            "Put the working folder on a disk that all machines share, or delete the file "
            "everywhere"
        )
    return start


def _follow(
    run: TrainingRun,
    results: Iterable[StepResult],
    parts: Mapping[str, Stateful],
    log: RunLog | None,
    progress: Progress,
    keep_going: Callable[[], bool],
) -> bool:
    """Check, log and save the steps as they are taken; False if told to stop before the last."""
    training, ranks = run.training, run.ranks
    note, unchecked, stop = "", [], Stop(ranks, keep_going)
    for result in results:
        unchecked.append(result)
        last = result.step == training.steps
        logs = last or result.step == 1 or result.step % LOG_EVERY == 0
        stops = stop.is_due(result.step)
        saves = last or stops or result.step % training.checkpoint_every == 0
        if saves or logs:
            check_finite(unchecked, run.title, run.name_source)
            unchecked.clear()
        if log is not None:
            note = log.append(result) if logs else note
            progress(result.step, training.steps, note)
        if saves:
            check_weights(run.modules, run.title, result.step)
            save_checkpoint(run.checkpoint, result.step, parts, writes=ranks.is_main)
        if stops and not last:
            return False
    return True


class Stop:
    """Whether to stop, at the same step on all ranks.

    They ask each other every STOP_WITHIN_S seconds by the pace of the slowest, and every LOG_EVERY
    steps at least: a launcher kills what has not ended half a minute after its signal.
    """

    def __init__(self, ranks: Ranks, keep_going: Callable[[], bool]) -> None:
        self._ranks, self._keep_going = ranks, keep_going
        self._due, self._asked, self._since = 0, 0, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Return whether training ends after this step."""
        if self._ranks.size == 1:
            return not self._keep_going()
        if step < self._due:
            return False
        pace = (time.monotonic() - self._since) / max(1, step - self._asked)
        answers = self._ranks.collect((not self._keep_going(), pace))
        steps = int(STOP_WITHIN_S / max(pace for _, pace in answers))
        self._due = step + min(max(steps, 1), LOG_EVERY)
        self._asked, self._since = step, time.monotonic()
        return any(stops for stops, _ in answers)


@contextmanager
def _name_checkpoint_on_error(run: TrainingRun) -> Iterator[None]:
    """Note beside whatever ends a training that its last checkpoint is whole, and where it is."""
    try:
        yield
    except Exception as error:
        if run.ranks.is_main and run.checkpoint.exists():
            same = isinstance(error, NonFiniteTermError)  # the same steps would end the same
            goes_on = "the last checkpoint before is" if same else "the same command goes on from"
            error.add_note(f"{run.title}: {goes_on} {run.checkpoint}")
        raise
