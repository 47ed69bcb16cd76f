"""Follow a training: log, show, save, stop; for the teacher's and for every student's stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import click

from pipeline.loading.workers import LoaderError, name_dead_workers
from pipeline.runtime.checkpoint import GlobalRng, Stateful, load_checkpoint, save_checkpoint
from pipeline.runtime.distributed import PerRank
from pipeline.training.log import RunLog
from pipeline.training.optimizer import Optimisation
from pipeline.training.run import Stopwatch, TrainingRun
from pipeline.training.steps import NonFiniteTermError, check_finite, check_weights, train
from stages.command import Interruption
from stages.progress import Advance, progress
from store.lock import Lock

LOG_EVERY = 10
SIGNALS_APART_S = 0.5


def fit(run: TrainingRun) -> float:
    """Train to the end and return the seconds it took, interruptions left out.

    SIGTERM and SIGINT save a checkpoint and exit with code 3. A second process on the same work
    folder is refused: a stage may outlive the `dvc repro` that started it.

    Raises:
        StoreLockedError: another process trains this run.
        NonFiniteTermError: the run diverges; nothing that is not finite is kept.
        BatchTooLargeError: a batch does not fit; the message says what would.
        ValueError: the ranks do not see one checkpoint.
    """
    with Lock(run.work) if run.ranks.is_main else contextlib.nullcontext():
        return _fit(run)


def _fit(run: TrainingRun) -> float:
    training, checkpoint, ranks = run.training, run.work / "last.pt", run.ranks
    device = next(run.modules.parameters()).device
    optimisation = Optimisation(run.modules, training, device)
    stopwatch = Stopwatch()
    parts: dict[str, Stateful] = {
        "modules": run.modules,
        **optimisation.parts,
        "rng": PerRank(GlobalRng(), ranks),
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
    log = RunLog(run.work / "log.jsonl", run.header, start) if ranks.is_main else None
    batches = run.open_batches(range(start, training.steps))
    results = train(
        run.compute_terms,
        run.weights,
        batches,
        optimisation,
        start_step=start,
        accumulate=training.accumulate,
    )
    note, unchecked = "", []
    with (
        Interruption() as stop,
        _shown(run, start) as advance,
        _name_checkpoint_on_error(run, stop),
    ):
        for result in results:
            unchecked.append(result)
            last = result.step == training.steps
            logs = last or result.step == 1 or result.step % LOG_EVERY == 0
            # Ranks stop at the same step; alone there is no one to wait for.
            stops = ranks.agree(stop.requested) if logs or ranks.size == 1 else False
            saves = last or stops or result.step % training.checkpoint_every == 0
            if saves or logs:
                check_finite(unchecked, run.title, run.name_source)
                unchecked.clear()
            if logs and log is not None:
                note = log.append(result)
            advance(1, note)
            if saves:
                check_weights(run.modules, run.title, result.step)
                save_checkpoint(checkpoint, result.step, parts, writes=ranks.is_main)
            if stops and not last:
                stop.exit(f"{run.title} is kept at step {result.step}")
    optimisation.finish()
    return round(stopwatch.seconds, 2)


def _shown(run: TrainingRun, start: int) -> contextlib.AbstractContextManager[Advance]:
    if run.ranks.is_main:
        return progress(run.title, run.training.steps, "steps", start)
    return contextlib.nullcontext(lambda count=1, note="": None)


@contextlib.contextmanager
def _name_checkpoint_on_error(run: TrainingRun, stop: Interruption) -> Iterator[None]:
    """Whatever ends a training, its last checkpoint is whole: say so beside the error."""
    try:
        with name_dead_workers():
            yield
    except Exception as error:
        kept = run.work / "last.pt"
        if isinstance(error, LoaderError):
            # Some managers (Slurm's scancel, say) signal every process, and not in one moment.
            time.sleep(SIGNALS_APART_S)
            if stop.requested:
                stop.exit(f"{run.title} is kept at its last checkpoint, if it has one")
        if run.ranks.is_main and kept.exists():
            same = isinstance(error, NonFiniteTermError)  # the same steps would end the same
            goes_on = "the last checkpoint before is" if same else "the same command goes on from"
            click.echo(f"{run.title}: {goes_on} {kept}", err=True)
        raise
