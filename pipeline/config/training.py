"""How a network is optimised, as sections of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.augment import WHOLE, Augment
from pipeline.config.base import BaseConfig, Count, Positive, Precision, Weight


class TrainingConfig(BaseConfig):
    """How a network is optimised; the same model for the teacher and every student.

    `batch_size` is of one optimisation step: on all ranks together, in `accumulate` micro-batches.
    """

    steps: Count
    batch_size: Annotated[int, Field(ge=2, lt=2**31)]  # batch norm over a pooled 1x1 map needs two
    accumulate: Count = 1
    optimizer: Literal["sgd", "adamw"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Weight
    schedule: Literal["poly", "one_cycle"]
    precision: Precision
    auxiliary_weight: Weight = 0.4
    clip_norm: Positive | None = None  # the greatest norm of all gradients together
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # keep a moving average
    compile: str | None = None  # a backend of torch.compile, e.g. inductor
    checkpoint_every: Count = 100

    def micro_batch_size(self, num_ranks: int = 1) -> int:
        """Return the samples of one forward pass on each of some ranks.

        Raises:
            ValueError: the batch cannot be split evenly, or to fewer than two each.
        """
        size, left = divmod(self.batch_size, self.accumulate * num_ranks)
        if left or size < 2:
            raise ValueError(
                f"training.batch_size: expected a multiple of accumulate {self.accumulate} x "
                f"{num_ranks} ranks, two samples or more for each; found {self.batch_size}"
            )
        return size

    @model_validator(mode="after")
    def _splits_evenly(self) -> TrainingConfig:
        self.micro_batch_size()
        return self


class StudentTrainingConfig(TrainingConfig):
    """How a student is optimised, and what still varies of the views that are stored."""

    augment: Augment = WHOLE
