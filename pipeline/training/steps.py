"""One training loop, for the teacher and for every student: a generator of step results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from pipeline.training.optimizer import Optimisation

ComputeTerms = Callable[[Any], Mapping[str, Tensor]]
"""Maps a batch, of the class that its terms take (hence Any), to every term, not yet weighted."""


@dataclass(frozen=True)
class StepResult:
    """One step that was taken; reading a tensor of it waits for the device.

    Values are means over the step's micro-batches, and over ranks.

    Attributes:
        step: steps done, this one included.
        total: the weighted sum that was minimised, detached.
        terms: every term's value before weighting, detached.
        finite: bool, whether all terms are.
        source: what its batches were made of (the numbers of their records), for error messages.
        learning_rate: the rate this step used.
        wait_s: seconds spent waiting for batches.
    """

    step: int
    total: Tensor
    terms: Mapping[str, Tensor]
    finite: Tensor
    source: Any
    learning_rate: float
    wait_s: float


class NonFiniteTermError(ValueError):
    """A term, or a weight by its gradient, became NaN or infinite; the message names it."""


class BatchTooLargeError(ValueError):
    """A batch does not fit into memory; the message says how many samples do."""


def train(
    compute_terms: ComputeTerms,
    weights: Mapping[str, float],
    batches: Iterable[Any],
    optimisation: Optimisation,
    *,
    start_step: int = 0,
    accumulate: int = 1,
) -> Iterator[StepResult]:
    """Take one optimisation step per `accumulate` batches and yield its result.

    Args:
        compute_terms: maps a batch to its terms, each a scalar with a gradient.
        weights: the weight of every term; the sum of the weighted terms is minimised.
        batches: `accumulate` of them per step still to take; their end ends the training.
        optimisation: of everything that learns.
        start_step: steps taken before (resume).
        accumulate: micro-batches whose gradients are averaged into one step.
    """
    passes = _Passes(compute_terms, weights, optimisation, accumulate)
    micro_batches, pace = iter(batches), _Pace(optimisation.device)
    for step in count(start_step + 1):
        rate = optimisation.learning_rate
        try:
            taken = _gather_gradients(passes, micro_batches, pace)
            if taken is None:
                return
            optimisation.step()
        except torch.OutOfMemoryError as error:
            raise BatchTooLargeError(
                f"memory ran out beside a batch's passes, in step {step} ({error}); raise "
                "training.accumulate, or take a smaller crop"
            ) from error
        total = _weighted_sum(taken.terms, weights)
        finite = torch.isfinite(torch.stack(list(taken.terms.values()))).all()
        yield StepResult(step, total, taken.terms, finite, taken.source, rate, taken.wait_s)


def _weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


class _Pace:
    """Keeps the host at most one micro-batch ahead of a GPU, so that no more than two lie there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._queued: torch.cuda.Event | None = None

    def keep(self) -> None:
        """Wait for all but the last micro-batch that was queued; before the next is asked for."""
        if self._device.type != "cuda":
            return
        before, self._queued = self._queued, torch.cuda.current_stream(self._device).record_event()
        if before is not None:
            before.synchronize()


@dataclass(frozen=True)
class _Passes:
    """The forward and backward passes of one training."""

    compute_terms: ComputeTerms
    weights: Mapping[str, float]
    optimisation: Optimisation
    accumulate: int

    def backward(self, batch: Any, last: bool = True) -> dict[str, Tensor] | None:
        """Add a micro-batch's gradients and return its terms; None if memory runs out.

        Ranks need not exchange gradients before the `last` micro-batch of a step.
        """
        no_sync = getattr(self.compute_terms, "no_sync", nullcontext)
        with nullcontext() if last else no_sync():
            try:
                terms = self.compute_terms(batch)
                total = _weighted_sum(terms, self.weights)
                self.optimisation.backward(total / self.accumulate)
            except torch.OutOfMemoryError:
                return None
        return {name: value.detach() for name, value in terms.items()}

    def largest_fit(self, batch: Any) -> int:
        """Try halves of a batch that did not fit; 0 if none does, or if other ranks wait."""
        size = len(batch)
        while (size := size // 2) >= 2 and not distributed.is_initialized():
            self.optimisation.discard()
            if self.backward(batch.first(size)) is not None:
                return size
        return 0


class _Taken(NamedTuple):
    terms: dict[str, Tensor]
    source: Any
    wait_s: float


def _gather_gradients(passes: _Passes, micro_batches: Iterator[Any], pace: _Pace) -> _Taken | None:
    """Go backward through one step's micro-batches; None if there are no more."""
    means: dict[str, Tensor] = {}
    wait_s, records = 0.0, []
    for number in range(1, passes.accumulate + 1):
        pace.keep()
        before = time.perf_counter()
        batch = next(micro_batches, None)
        wait_s += time.perf_counter() - before
        if batch is None:
            return None
        terms = passes.backward(batch, last=number == passes.accumulate)
        if terms is None:
            raise BatchTooLargeError(_explain_memory(batch, passes.largest_fit(batch)))
        records.append(getattr(batch, "record", None))
        for name, value in terms.items():
            means[name] = means.get(name, 0) + value / passes.accumulate
    known = [record for record in records if record is not None]
    return _Taken(means, torch.cat(known) if known else None, wait_s)


def _explain_memory(batch: Any, fitting: int) -> str:
    found = f"training.batch_size: {len(batch)} samples in one pass do not fit into memory"
    if not fitting:
        return f"{found}; raise training.accumulate, or take a smaller crop"
    times = -(-len(batch) // fitting)
    return f"{found}, {fitting} do (tried); multiply training.accumulate by {times}"


def check_weights(modules: nn.Module, title: str, step: int) -> None:
    """Refuse to keep weights that nothing can go on from: a gradient overflows though terms do not.

    Raises:
        NonFiniteTermError: naming the first of them.
    """
    for name, value in modules.state_dict().items():
        if not torch.isfinite(value).all():
            raise NonFiniteTermError(
                f"{title}: {name} is not finite after step {step}, though every term was. Lower "
                "training.learning_rate, set training.clip_norm, or train in float32, and start "
                "it again."
            )


def check_finite(
    results: Iterable[StepResult], title: str, name_source: Callable[[Any], str]
) -> None:
    """Stop a diverging run with the term's name.

    Args:
        results: since the last check, in order; only this reads them, so that a step need not wait.
        title: of the run.
        name_source: puts a result's source into words.

    Raises:
        NonFiniteTermError: naming the term, the step and what the batch was made of.
    """
    for result in results:
        if result.finite:
            continue
        terms = {name: value.item() for name, value in result.terms.items()}
        bad = ", ".join(f"{name} is {v}" for name, v in terms.items() if not math.isfinite(v))
        raise NonFiniteTermError(
            f"{title}: term {bad} at step {result.step}{name_source(result.source)}; expected a "
            "finite value. Lower training.learning_rate, or train in float32, and start it again."
        )
