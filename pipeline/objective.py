"""What one run minimises: cross-entropy and a weighted list of distillation terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.checkpoint import SavedGenerator, Stateful
from pipeline.losses.cirkd import Projector, memory, minibatch_pixel
from pipeline.losses.cross_entropy import cross_entropy
from pipeline.losses.kd import kd
from pipeline.losses.mean import Mean
from pipeline.memory import Memory
from pipeline.network import Output, normalise, precision_scope, upsample
from pipeline.params import Distillation
from pipeline.params import Student as Run
from pipeline.queues import Contrast
from pipeline.randomness import torch_generator
from pipeline.stream import Batch, Targets
from pipeline.students import Student
from store.schema import StoreSpec


@dataclass(frozen=True)
class Step:
    """One batch, what the student said of it, and what the terms compare it with."""

    batch: Batch
    output: Output
    settings: Distillation
    projector: Projector | None
    memory: Memory | None
    generator: torch.Generator

    @property
    def targets(self) -> Targets:
        """What the teacher said."""
        assert self.batch.targets is not None, "a distillation term needs a teacher's targets"
        return self.batch.targets

    @cached_property
    def projected(self) -> Tensor:
        """Student features in the teacher's channels [B, D, h, w], once for every memory term."""
        assert self.projector is not None
        return self.projector(self.output.features)


def _kd(step: Step) -> Mean:
    inside, temperature = step.batch.grid_inside, step.settings.temperature
    return kd(step.output.logits, step.targets.logits, inside, temperature=temperature)


def _minibatch_pixel(step: Step) -> Mean:
    return minibatch_pixel(
        step.output.features,
        step.targets.features,
        step.batch.grid_inside,
        temperature=step.settings.similarity_temperature,
        num_anchors=step.settings.minibatch_anchors,
        generator=step.generator,
    )


def _memory_pixel(step: Step) -> Mean:
    assert step.memory is not None
    return _memory(step, step.memory.pixel_contrast(step.batch))


def _memory_region(step: Step) -> Mean:
    assert step.memory is not None
    return _memory(step, step.memory.region_contrast(step.batch))


def _memory(step: Step, contrast: Contrast) -> Mean:
    return memory(
        step.projected,
        step.targets.features,
        step.batch.anchors,
        contrast,
        temperature=step.settings.similarity_temperature,
        num_anchors=step.settings.memory_anchors,
        generator=step.generator,
    )


# Term name (as in params and pipeline.methods) -> its value on one step.
TERMS: dict[str, Callable[[Step], Mean]] = {
    "kd": _kd,
    "minibatch_pixel": _minibatch_pixel,
    "memory_pixel": _memory_pixel,
    "memory_region": _memory_region,
}
MEMORY_TERMS = frozenset({"memory_pixel", "memory_region"})


class Objective:
    """Computes every term of a run; keeps what learns beside the student, and the memory.

    Args:
        student: the network that is trained.
        spec: of the store the targets come from.
        run: method or terms, temperatures, queue sizes, seed.
        device: where everything lives.
    """

    def __init__(self, student: Student, spec: StoreSpec, run: Run, device: torch.device) -> None:
        self._student, self._run, self._device = student, run, device
        self.projector: Projector | None = None
        self.memory: Memory | None = None
        self._generator = torch_generator(run.seed, "anchors", device=device)
        if MEMORY_TERMS & set(run.weights):
            channels = student.feature_channels, spec.feature_channels
            self.projector = Projector(*channels).to(device)
            self.memory = Memory(spec, run.distillation, run.seed, device)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term, the task's included."""
        auxiliary = self._run.training.auxiliary_weight
        return {"task": 1.0, "auxiliary": auxiliary, **self._run.weights}

    @property
    def needs_targets(self) -> bool:
        """Whether any term compares with the teacher."""
        return bool(self._run.weights)

    @property
    def modules(self) -> torch.nn.ModuleList:
        """Everything with parameters to optimise."""
        projector = [self.projector] if self.projector is not None else []
        return torch.nn.ModuleList([self._student, *projector])

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint must hold beside `modules`."""
        memory: dict[str, Stateful] = {"memory": self.memory} if self.memory is not None else {}
        return {"anchors": SavedGenerator(self._generator), **memory}

    def compute_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Run the student on a batch and return every term's mean, unweighted."""
        size = (batch.labels.shape[-2], batch.labels.shape[-1])
        with precision_scope(self._device, self._run.training.precision):
            output = self._student(normalise(batch.image))
            means = {"task": cross_entropy(upsample(output.logits.float(), size), batch.labels)}
            if output.auxiliary is not None:
                auxiliary = upsample(output.auxiliary.float(), size)
                means["auxiliary"] = cross_entropy(auxiliary, batch.labels)
            step = Step(
                batch,
                output,
                self._run.distillation,
                self.projector,
                self.memory,
                self._generator,
            )
            means |= {name: TERMS[name](step) for name in self._run.weights}
        if self.memory is not None:
            self.memory.push(batch)
        return {name: mean.value for name, mean in means.items()}
