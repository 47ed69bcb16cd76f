"""A training outside the stages, for plans and benchmarks: no log, no checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from pipeline.config.params import Params, StudentConfig
from pipeline.config.training import TrainingConfig
from pipeline.distillation.objective import Objective
from pipeline.loading.batch import Batch
from pipeline.models.students import build_student
from pipeline.runtime.rng import seed_torch
from pipeline.training.optimizer import Optimisation
from pipeline.training.steps import StepResult, train
from store.schema import StoreSpec


def build_objective(config: StudentConfig, spec: StoreSpec, device: torch.device) -> Objective:
    """Build a fresh student and what is minimised with it, seeded as in its stage.

    Args:
        config: what is trained.
        spec: of the store the targets come from.
        device: where everything lives.
    """
    student = build_student(config, spec.num_classes)
    objective = Objective(student.to(device).train(), spec, config, device)
    seed_torch(config.seed, "student", "dropout")
    return objective


def take_steps(
    objective: Objective,
    training: TrainingConfig,
    batches: Iterable[Batch],
    compute_terms: Callable[[Batch], dict[str, Tensor]] | None = None,
) -> Iterator[StepResult]:
    """Train on the batches, a result a step; the queues are the caller's to fill.

    Args:
        objective: what is trained, and the terms' weights.
        training: how.
        batches: one for each step, or micro-batch.
        compute_terms: computes the terms instead of the objective.
    """
    modules = objective.modules
    optimisation = Optimisation(modules, training, next(modules.parameters()).device)
    yield from train(
        compute_terms or objective.compute_terms,
        objective.weights,
        batches,
        optimisation,
        accumulate=training.accumulate,
    )
    optimisation.finish()


def pick_cirkd(params: Params) -> str:
    """Find the name of the first student that is distilled by CIRKD.

    Raises:
        ValueError: there is none.
    """
    for name, config in params.students.items():
        if config.method == "cirkd":
            return name
    raise ValueError(
        f"profile {params.profile} has no student with method cirkd, which is what is measured; "
        "add one to `students`, or choose another profile"
    )
