"""A training outside the stages, for plans and benchmarks: no log, no checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from pipeline.config.params import Params
from pipeline.config.params import Student as Run
from pipeline.config.training import Training
from pipeline.distillation.objective import Objective
from pipeline.loading.batch import Batch
from pipeline.models.students import build_student
from pipeline.runtime.rng import seed_torch
from pipeline.training.optimizer import Optimisation
from pipeline.training.steps import Report, train
from store.schema import StoreSpec


def build_objective(
    run: Run, spec: StoreSpec, device: torch.device, kind: type[Objective] = Objective
) -> Objective:
    """A fresh student and what is minimised with it, from the same chance as in its stage.

    Args:
        run: what is trained.
        spec: of the store the targets come from.
        device: where everything lives.
        kind: how the terms are computed.
    """
    seed_torch(run.seed, "student", "weights")
    student = build_student(run.architecture, spec.num_classes, run.encoder_weights).to(device)
    objective = kind(student.train(), spec, run, device)
    seed_torch(run.seed, "student", "dropout")
    return objective


def take_steps(
    objective: Objective, recipe: Training, batches: Iterable[Batch]
) -> Iterator[Report]:
    """Optimise on the batches, a report a step; the queues are the caller's to fill."""
    modules = objective.modules
    optimisation = Optimisation(modules, recipe, next(modules.parameters()).device)
    yield from train(
        objective.compute_terms,
        objective.weights,
        batches,
        optimisation,
        accumulate=recipe.accumulate,
    )
    optimisation.finish()


def pick_cirkd(params: Params) -> str:
    """The name of the first student that is distilled by CIRKD.

    Raises:
        ValueError: there is none.
    """
    for name, run in params.students.items():
        if run.method == "cirkd":
            return name
    raise ValueError(
        f"profile {params.profile} has no student with method cirkd, which is what is measured; "
        "add one to `students`, or choose another profile"
    )
