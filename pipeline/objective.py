"""What one run minimises: cross-entropy and a weighted list of distillation terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.checkpoint import SavedGenerator, Stateful
from pipeline.losses.cross_entropy import cross_entropy
from pipeline.memory import Memory
from pipeline.network import normalise, precision_scope, upsample
from pipeline.params import Student as Run
from pipeline.randomness import torch_generator
from pipeline.stream import Batch
from pipeline.students import Student
from pipeline.terms import BESIDE, TERMS, Step
from store.schema import StoreSpec


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
        terms = [TERMS[name] for name in run.weights]
        names = sorted({term.module for term in terms if term.module is not None})
        channels = student.feature_channels, spec.feature_channels
        self._beside = nn.ModuleDict({name: BESIDE[name](*channels) for name in names}).to(device)
        self._generator = torch_generator(run.seed, "anchors", device=device)
        self.memory: Memory | None = None
        if any(term.memory for term in terms):
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
    def modules(self) -> nn.ModuleDict:
        """Everything with parameters to optimise."""
        return nn.ModuleDict({"student": self._student, "beside": self._beside})

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
            settings = self._run.distillation
            step = Step(batch, output, settings, self._beside, self.memory, self._generator)
            means |= {name: TERMS[name].compute(step) for name in self._run.weights}
        if self.memory is not None:
            self.memory.push(batch)
        return {name: mean.value for name, mean in means.items()}
