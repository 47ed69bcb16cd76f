"""What one run minimises: cross-entropy and a weighted list of distillation terms."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config.methods import TERMS
from pipeline.config.params import DistillationConfig, StudentConfig
from pipeline.distillation.components import Components, Setup
from pipeline.distillation.grid import to_grid
from pipeline.distillation.label_terms import label_terms
from pipeline.distillation.terms import COMPUTATIONS, Step
from pipeline.loading.batch import Batch
from pipeline.memory.contrast_memory import BANKS
from pipeline.models.network import Network
from pipeline.ops.subspace import basis_tensor
from pipeline.runtime.checkpoint import SavedGenerator, Stateful
from pipeline.runtime.distributed import SINGLE_PROCESS, PerRank, Ranks
from pipeline.runtime.precision import precision_scope
from pipeline.runtime.rng import torch_generator
from store.arrays import TARGETS
from store.reader import Reader
from store.schema import StoreSpec


class Objective:
    """Computes every term of a run, and keeps what the terms need beside the student.

    Args:
        student: the network that is trained.
        spec: of the store the targets come from.
        config: method or terms, temperatures, queue sizes, seed.
        device: where everything lives.
        ranks: among which every batch is sharded.
    """

    def __init__(
        self,
        student: Network,
        spec: StoreSpec,
        config: StudentConfig,
        device: torch.device,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self._student, self._config, self._device, self._ranks = student, config, device, ranks
        height, width = config.training.augment.cut_size(spec.height, spec.width)
        strides = {config.architecture: student.stride}
        if (height, width) != (spec.height, spec.width):
            strides["the store"] = spec.stride
        for owner, stride in strides.items():
            if height % stride or width % stride:
                raise ValueError(
                    f"{owner} has output stride {stride}; expected records, or crops of them, in "
                    f"multiples of it; found {height} x {width} (store.crop, training.augment)"
                )
        wanted = [one for term in config.weights for one in COMPUTATIONS[term].components]
        setup = Setup(student.feature_channels, spec, config, device, ranks)
        self._components = Components(wanted, setup)
        self._basis = basis_tensor(spec, device)
        self._generator = torch_generator(config.seed, "anchors", *ranks.path, device=device)
        self.settings = _split_anchors(config.distillation, ranks.size * config.training.accumulate)

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of every term, the task's included."""
        return self._config.all_weights

    @property
    def needs(self) -> tuple[str, ...]:
        """Name what must be read of each record beside image and labels, of TARGETS."""
        needed = {need for term in self._config.weights for need in TERMS[term].needs}
        return tuple(need for need in TARGETS if need in needed)

    @property
    def modules(self) -> nn.ModuleDict:
        """Join all that the run's optimizer moves: the student, and what learns with it."""
        return nn.ModuleDict({"student": self._student, **self._components.modules})

    @property
    def parts(self) -> dict[str, Stateful]:
        """Return what a checkpoint must hold beside `modules`."""
        anchors = PerRank(SavedGenerator(self._generator), self._ranks)
        return {"anchors": anchors, **self._components.others}

    def fill(self, reader: Reader, *, resumed: bool = False, banks: Path = BANKS) -> None:
        """Make the memories ready to be drawn from, at every start; see `ContrastMemory.fill`."""
        for memory in self._components.memories:
            memory.fill(reader, resumed=resumed, banks=banks)

    def compute_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Run the student on a batch and return every term's mean over all ranks, unweighted.

        The memories move on after the terms have sampled, so that no anchor meets itself.
        """
        with precision_scope(self._device, self._config.training.precision):
            output = self._student(self._student.normalise(batch.image))
            means = label_terms(self._student, output, batch.labels)
            components, generator = self._components, self._generator
            on_grid = to_grid(output, batch.grid_valid)
            step = Step(
                batch, on_grid, self.settings, components, generator, self._basis, self._ranks
            )
            means |= {name: COMPUTATIONS[name].compute(step) for name in self._config.weights}
        for memory in self._components.memories:
            memory.push(batch)
        return self._ranks.merge(means)

    def replicated(self) -> nn.Module:
        """Wrap `compute_terms` in a module whose backward pass averages gradients over ranks."""
        return self._ranks.replicate(_Terms(self), self._device)


def _split_anchors(settings: DistillationConfig, num_passes: int) -> DistillationConfig:
    """Split a step's random rows among its passes: micro-batches on ranks."""
    wanted = {name: getattr(settings, name) for name in ("minibatch_anchors", "memory_anchors")}
    parts = {name: -(-number // num_passes) for name, number in wanted.items() if number}
    return settings.model_copy(update=parts)


class _Terms(nn.Module):
    """What an objective computes, and all that learns by it, as one module."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.modules_that_learn = objective.modules
        self._compute_terms = objective.compute_terms

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms."""
        return self._compute_terms(batch)
