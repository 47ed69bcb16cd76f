"""One training, described: what is optimised, logged and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.config.training import TrainingConfig
from pipeline.runtime.checkpoint import Stateful
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks


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
        open_batches: the batches of the given steps.
        begin: called before step 1, and only then.
        work: folder of the checkpoint and the log, until the stage is done.
        header: first line of the log; everything needed to repeat the run.
        name_source: what a batch was made of, in words, for the error of a diverging run.
        ranks: that train together; the first of them logs, shows and saves.
    """

    title: str
    training: TrainingConfig
    modules: nn.Module
    parts: Mapping[str, Stateful]
    compute_terms: Callable[[Any], Mapping[str, Tensor]]
    weights: Mapping[str, float]
    open_batches: Callable[[range], Iterable[Any]]
    begin: Callable[[], None]
    work: Path
    header: Mapping[str, Any]
    name_source: Callable[[Any], str] = lambda source: ""
    ranks: Ranks = SINGLE_PROCESS
