"""One run stepped in four variants: labels alone, from the store, and with the teacher in it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.benchmarks.naive import naive_kl, naive_minibatch
from pipeline.benchmarks.online import query_teacher
from pipeline.benchmarks.timing import interleaved_medians
from pipeline.benchmarks.trainer import build_objective, take_steps
from pipeline.config.params import StudentConfig
from pipeline.distillation.components import MEMORY
from pipeline.distillation.objective import Objective
from pipeline.extraction.job import Extraction
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.loading.workers import PREFETCH_FACTOR
from pipeline.losses.cross_entropy import cross_entropy
from pipeline.losses.kd import kd
from pipeline.memory.contrast_memory import Kind
from pipeline.models.network import normalise, upsample
from pipeline.models.students import Student
from pipeline.ops.embedding import pixel_embeddings
from pipeline.runtime.precision import precision_scope
from pipeline.runtime.rng import torch_generator
from pipeline.training.steps import StepResult
from store.reader import Reader
from store.schema import StoreSpec

# Steps of the offline run, in a row, over which its wait for batches is counted.
NUM_WAIT_STEPS = 6


class PublicCode(Objective):
    """CIRKD's terms as the paper's public code computes them: whole matrices, by plain autograd.

    It knows neither padding nor unusable columns; where there are none, the values are the same.
    Where a run draws anchors, they are so many of every image, the same positions in each.
    """

    def __init__(
        self, student: Student, spec: StoreSpec, config: StudentConfig, device: torch.device
    ) -> None:
        super().__init__(student, spec, config, device)
        self._rng = torch_generator(config.seed, "anchor places", device=device)

    def compute_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Run the student on a batch and return every term's mean, unweighted."""
        assert batch.targets is not None, "CIRKD needs a teacher's targets"
        settings, targets = self._config.distillation, batch.targets
        size = (batch.labels.shape[-2], batch.labels.shape[-1])
        tau, memory = settings.similarity_temperature, self._components[MEMORY]
        with precision_scope(self._device, self._config.training.precision):
            output = self.modules["student"](normalise(batch.image))
            heads = {"task": output.logits, "auxiliary": output.auxiliary}
            terms = {
                name: cross_entropy(upsample(logits.float(), size), batch.labels).value
                for name, logits in heads.items()
                if logits is not None
            }
            valid, temperature = batch.grid_valid, settings.temperature
            terms["kd"] = kd(output.logits, targets.logits, valid, temperature=temperature).value
            student, teacher = map(pixel_embeddings, (output.features, targets.features))
            rows = self._anchors(student)
            terms["minibatch_pixel"] = naive_minibatch(
                student[:, rows], teacher[:, rows], student, teacher, tau
            )
            projected = pixel_embeddings(self.modules["projector"](output.features))
            anchors = projected[:, rows].flatten(0, 1), teacher[:, rows].flatten(0, 1)
            kinds: tuple[Kind, ...] = ("pixel", "region")
            for kind in kinds:
                contrast = memory.sample(kind, batch).embeddings
                terms[f"memory_{kind}"] = naive_kl(*anchors, contrast, contrast, tau)
        memory.push(batch)
        return terms

    def _anchors(self, embeddings: Tensor) -> Tensor | slice:
        wanted = self._config.distillation.minibatch_anchors
        if wanted is None:
            return slice(None)
        order = torch.randperm(embeddings.shape[1], generator=self._rng, device=self._rng.device)
        return order[: wanted // len(embeddings)]


@dataclass(frozen=True)
class Variants:
    """One CIRKD run over one store, and the teacher that would stand in for the store.

    Attributes:
        reader: of the store; every variant gets its images and labels from it.
        config: of method cirkd; its `training.steps` is how many steps can be taken.
        teach: makes the teacher's job; its teacher is left as it is.
        fill: fills the queues.
        device: of everything.
        num_workers: loader processes, as in training.
    """

    reader: Reader
    config: StudentConfig
    teach: Callable[[], Extraction]
    fill: Callable[[Objective, Reader], None]
    device: torch.device
    num_workers: int

    def steps(self, variant: str) -> Iterator[StepResult]:
        """Take the steps of one of VARIANTS."""
        return VARIANTS[variant](self)

    def _objective(self, config: StudentConfig, kind: type[Objective] = Objective) -> Objective:
        objective = build_objective(config, self.reader.spec, self.device, kind)
        self.fill(objective, self.reader)
        return objective

    def _take(self, objective: Objective, batches: Iterable[Batch]) -> Iterator[StepResult]:
        return take_steps(objective, self.config.training, batches)

    def _stream(self, needs: tuple[str, ...] = ()) -> Iterator[Batch]:
        loading = LoaderConfig.of_student(self.config, needs, self.num_workers)
        return stream(self.reader, loading, range(self.config.training.steps), self.device)

    def _ce(self) -> Iterator[StepResult]:
        return self._take(
            self._objective(self.config.model_copy(update={"method": "ce"})), self._stream()
        )

    def _offline(self) -> Iterator[StepResult]:
        objective = self._objective(self.config)
        return self._take(objective, self._stream(objective.needs))

    def _online(self) -> Iterator[StepResult]:
        asked = map(partial(query_teacher, self.teach()), self._stream())
        return self._take(self._objective(self.config), asked)

    def _public_code(self) -> Iterator[StepResult]:
        objective, job = self._objective(self.config, PublicCode), self.teach()
        job = replace(job, teacher=copy.deepcopy(job.teacher))
        keep_contiguous(objective.modules["student"])
        keep_contiguous(job.teacher)
        return self._take(objective, map(partial(query_teacher, job), self._stream()))


# Variant -> its steps: labels alone; CIRKD from the store; the same objective with the
# teacher in the loop; the teacher in the loop and everything as the paper's public code does it.
VARIANTS: dict[str, Callable[[Variants], Iterator[StepResult]]] = {
    "ce": Variants._ce,
    "offline": Variants._offline,
    "online": Variants._online,
    "public_code": Variants._public_code,
}


def keep_contiguous(network: nn.Module) -> None:
    """Make a channels-last network compute in torch's default memory format."""
    network.to(memory_format=torch.contiguous_format)
    network.register_forward_pre_hook(lambda module, images: (images[0].contiguous(),))


def step_medians(variants: Variants, num_rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of a step of every variant, interleaved; the offline step's share of waiting.

    The wait is counted over steps in a row, after those whose batches lay ready because other
    variants had their turn.
    """
    warm_up = PREFETCH_FACTOR * variants.num_workers
    training = variants.config.training.model_copy(
        update={"steps": 1 + num_rounds + warm_up + NUM_WAIT_STEPS}
    )
    variants = replace(variants, config=variants.config.model_copy(update={"training": training}))
    steps = {variant: variants.steps(variant) for variant in VARIANTS}
    seconds = interleaved_medians(
        {variant: partial(finish_step, results) for variant, results in steps.items()}, num_rounds
    )
    for _ in range(warm_up):
        finish_step(steps["offline"])
    start = time.perf_counter()
    waits = [finish_step(steps["offline"]).wait_s for _ in range(NUM_WAIT_STEPS)]
    return seconds, sum(waits) / (time.perf_counter() - start)


def finish_step(steps: Iterator[StepResult]) -> StepResult:
    """Take the next step and wait for the device."""
    result = next(steps)
    result.total.item()
    return result
