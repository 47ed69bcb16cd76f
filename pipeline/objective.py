"""What one run minimises: cross-entropy and a weighted list of distillation terms."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.bank import BANKS, Bank
from pipeline.checkpoint import SavedGenerator, Stateful
from pipeline.companions import COMPANIONS
from pipeline.losses.cross_entropy import cross_entropy
from pipeline.network import normalise, precision_scope, upsample
from pipeline.params import Distillation
from pipeline.params import Student as Run
from pipeline.randomness import torch_generator
from pipeline.ranks import ALONE, PerRank, Ranks
from pipeline.stream import Batch
from pipeline.students import Student
from pipeline.terms import TERMS, Step
from store.arrays import TARGETS
from store.reader import Reader
from store.schema import StoreSpec

QUEUES = ("memory", "channels")


class Objective:
    """Computes every term of a run, and keeps what the terms need beside the student.

    Args:
        student: the network that is trained.
        spec: of the store the targets come from.
        run: method or terms, temperatures, queue sizes, seed.
        device: where everything lives.
        ranks: among which every batch is shared out.
    """

    def __init__(
        self,
        student: Student,
        spec: StoreSpec,
        run: Run,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self._student, self._run, self._device, self._ranks = student, run, device, ranks
        headless = [term for term in run.weights if TERMS[term].auxiliary]
        if headless and student.auxiliary is None:
            raise ValueError(
                f"term {headless[0]} compares auxiliary heads, and {run.architecture} has none; "
                "take a ResNet student, or leave the term out"
            )
        names = {name for term in run.weights for name in TERMS[term].companions}
        channels = student.feature_channels
        self._companions = {
            name: COMPANIONS[name](channels, spec, run, device, ranks) for name in sorted(names)
        }
        self._generator = torch_generator(run.seed, "anchors", *ranks.path, device=device)
        self.settings = _share_anchors(run.distillation, ranks.size * run.training.accumulate)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term, the task's included."""
        auxiliary = self._run.training.auxiliary_weight
        return {"task": 1.0, "auxiliary": auxiliary, **self._run.weights}

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be read of each record beside image and labels; names of TARGETS."""
        needed = {need for term in self._run.weights for need in TERMS[term].needs}
        return tuple(need for need in TARGETS if need in needed)

    @property
    def modules(self) -> nn.ModuleDict:
        """Everything that the run's optimizer moves: the student, and what learns with it."""
        learning = {n: c for n, c in self._companions.items() if isinstance(c, nn.Module)}
        return nn.ModuleDict({"student": self._student, **learning})

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint must hold beside `modules`."""
        others = {n: c for n, c in self._companions.items() if not isinstance(c, nn.Module)}
        return {"anchors": PerRank(SavedGenerator(self._generator), self._ranks), **others}

    def open(self, reader: Reader, banks: Path = BANKS) -> None:
        """Map what a run draws from beside batches, at every start (`banks`: where it is built)."""
        memory = self._companions.get("memory")
        if isinstance(memory, Bank):
            memory.open(reader, banks)

    def fill(self, reader: Reader) -> None:
        """Fill the queues from the store, before step 1."""
        for name in QUEUES:
            if name in self._companions:
                self._companions[name].fill(reader)

    def compute_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Run the student on a batch and return every term's mean over all ranks, unweighted.

        The queues move on after the terms have sampled, so that no anchor meets itself.
        """
        size = (batch.labels.shape[-2], batch.labels.shape[-1])
        with precision_scope(self._device, self._run.training.precision):
            output = self._student(normalise(batch.image))
            means = {"task": cross_entropy(upsample(output.logits.float(), size), batch.labels)}
            if output.auxiliary is not None:
                auxiliary = upsample(output.auxiliary.float(), size)
                means["auxiliary"] = cross_entropy(auxiliary, batch.labels)
            companions, chance = self._companions, self._generator
            step = Step(batch, output, self.settings, companions, chance, self._ranks)
            means |= {name: TERMS[name].compute(step) for name in self._run.weights}
        for name in QUEUES:
            if name in self._companions:
                self._companions[name].push(batch)
        return self._ranks.merge(means)

    def replicated(self) -> nn.Module:
        """`compute_terms` as a module whose backward pass averages gradients over the ranks."""
        return self._ranks.replicate(_Terms(self), self._device)


def _share_anchors(settings: Distillation, num_passes: int) -> Distillation:
    """Share out a step's random rows among its passes: micro-batches on ranks."""
    wanted = {name: getattr(settings, name) for name in ("minibatch_anchors", "memory_anchors")}
    shares = {name: -(-number // num_passes) for name, number in wanted.items() if number}
    return settings.model_copy(update=shares)


class _Terms(nn.Module):
    """What an objective computes, and all that learns by it, as one module."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.modules_that_learn = objective.modules
        self._compute_terms = objective.compute_terms

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self._compute_terms(batch)
