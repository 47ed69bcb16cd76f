"""One optimisation loop, for the teacher and for every student: a generator of reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR

from pipeline.params import Training


@dataclass(frozen=True)
class Report:
    """One step that was taken; reading a tensor of it waits for the device.

    Attributes:
        step: steps done, this one included.
        total: the weighted sum that was minimised, detached.
        terms: every term's value before weighting, detached.
        finite: bool, whether all terms are.
        source: what the batch was made of (the numbers of its records), for error messages.
        learning_rate: the rate this step used.
        wait_s: seconds spent waiting for the batch.
    """

    step: int
    total: Tensor
    terms: Mapping[str, Tensor]
    finite: Tensor
    source: Any
    learning_rate: float
    wait_s: float


class NonFiniteTermError(ValueError):
    """A term became NaN or infinite; the message names it, the step and the records."""


def build_optimizer(module: nn.Module, recipe: Training) -> Optimizer:
    """SGD with momentum or AdamW over all of a module's parameters."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return SGD(module.parameters(), lr=rate, momentum=recipe.momentum, weight_decay=decay)
    return AdamW(module.parameters(), lr=rate, weight_decay=decay)


def build_schedule(optimizer: Optimizer, recipe: Training) -> LRScheduler:
    """Poly, rate * (1 - step/steps)^0.9, or one cycle up to the rate and down to nearly nothing."""
    if recipe.schedule == "poly":
        return PolynomialLR(optimizer, total_iters=recipe.steps, power=0.9)
    rate = recipe.learning_rate
    # One step more than is taken: the scheduler is advanced once after the last one, too.
    steps = recipe.steps + 1
    return OneCycleLR(optimizer, max_lr=rate, total_steps=steps, cycle_momentum=False)


def train(
    compute_terms: Callable[[Any], Mapping[str, Tensor]],
    weights: Mapping[str, float],
    batches: Iterable[Any],
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    start_step: int = 0,
) -> Iterator[Report]:
    """Take one optimisation step per batch and report it.

    Args:
        compute_terms: maps a batch to its terms, each a scalar with a gradient.
        weights: the weight of every term; the sum of the weighted terms is minimised.
        batches: one per step still to take; its length ends the training.
        optimizer: holds the parameters.
        schedule: advanced once a step.
        start_step: steps taken before (resume).
    """
    before = time.perf_counter()
    for step, batch in enumerate(batches, start=start_step + 1):
        wait_s = time.perf_counter() - before
        terms = compute_terms(batch)
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
        values = {name: value.detach() for name, value in terms.items()}
        finite = torch.isfinite(torch.stack(list(values.values()))).all()
        source = getattr(batch, "record", None)
        yield Report(step, total.detach(), values, finite, source, rate, wait_s)
        before = time.perf_counter()


def check_finite(reports: Iterable[Report], title: str, name_source: Callable[[Any], str]) -> None:
    """Stop a diverging run with the term's name.

    Args:
        reports: since the last check, in order; only this reads them, so that a step need not wait.
        title: of the run.
        name_source: puts a report's source into words.

    Raises:
        NonFiniteTermError: naming the term, the step and what the batch was made of.
    """
    for report in reports:
        if report.finite:
            continue
        terms = {name: value.item() for name, value in report.terms.items()}
        bad = ", ".join(f"{name} is {v}" for name, v in terms.items() if not math.isfinite(v))
        raise NonFiniteTermError(
            f"{title}: term {bad} at step {report.step}{name_source(report.source)}; expected a "
            "finite value. Lower training.learning_rate, or train in float32, and start it again."
        )
