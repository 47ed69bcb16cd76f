"""One run stepped in every way: labels alone, from the store, and with the teacher in it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.benchmarks.naive import naive_kl, naive_minibatch
from pipeline.benchmarks.timing import interleaved_medians
from pipeline.extraction import Extraction
from pipeline.live import ask
from pipeline.loading import PREFETCH_FACTOR
from pipeline.losses.cross_entropy import cross_entropy
from pipeline.losses.embedding import pixel_embeddings
from pipeline.losses.kd import kd
from pipeline.memory import Memory
from pipeline.network import normalise, precision_scope, upsample
from pipeline.objective import Objective
from pipeline.params import Student as Run
from pipeline.randomness import torch_generator
from pipeline.stream import Batch, stream
from pipeline.students import Student
from pipeline.training import Report
from pipeline.trial import build_objective, take_steps
from store.reader import Reader
from store.schema import StoreSpec

# Steps of the offline run, in a row, over which its wait for batches is counted.
NUM_WAIT_STEPS = 6


class PublicCode(Objective):
    """CIRKD's terms as the paper's public code computes them: whole matrices, by plain autograd.

    It knows neither padding nor unusable columns; where there are none, the values are the same.
    Where a run draws anchors, they are so many of every image, the same places in each.
    """

    def __init__(self, student: Student, spec: StoreSpec, run: Run, device: torch.device) -> None:
        super().__init__(student, spec, run, device)
        self._places = torch_generator(run.seed, "anchor places", device=device)

    def compute_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Run the student on a batch and return every term's mean, unweighted."""
        assert batch.targets is not None, "CIRKD needs a teacher's targets"
        settings, targets = self._run.distillation, batch.targets
        size = (batch.labels.shape[-2], batch.labels.shape[-1])
        tau, memory = settings.similarity_temperature, cast(Memory, self.parts["memory"])
        with precision_scope(self._device, self._run.training.precision):
            output = self.modules["student"](normalise(batch.image))
            heads = {"task": output.logits, "auxiliary": output.auxiliary}
            terms = {
                name: cross_entropy(upsample(logits.float(), size), batch.labels).value
                for name, logits in heads.items()
                if logits is not None
            }
            inside, temperature = batch.grid_inside, settings.temperature
            terms["kd"] = kd(output.logits, targets.logits, inside, temperature=temperature).value
            student, teacher = map(pixel_embeddings, (output.features, targets.features))
            rows = self._anchors(student)
            terms["minibatch_pixel"] = naive_minibatch(
                student[:, rows], teacher[:, rows], student, teacher, tau
            )
            projected = pixel_embeddings(self.modules["projector"](output.features))
            anchors = projected[:, rows].flatten(0, 1), teacher[:, rows].flatten(0, 1)
            for kind in ("pixel", "region"):
                contrast = getattr(memory, f"{kind}_contrast")(batch).embeddings
                terms[f"memory_{kind}"] = naive_kl(*anchors, contrast, contrast, tau)
        memory.push(batch)
        return terms

    def _anchors(self, embeddings: Tensor) -> Tensor | slice:
        wanted = self._run.distillation.minibatch_anchors
        if wanted is None:
            return slice(None)
        order = torch.randperm(
            embeddings.shape[1], generator=self._places, device=self._places.device
        )
        return order[: wanted // len(embeddings)]


@dataclass(frozen=True)
class Rivals:
    """One CIRKD run over one store, and the teacher that would stand in for the store.

    Attributes:
        reader: of the store; every way of stepping gets its images and labels from it.
        run: of method cirkd; its `training.steps` is how many steps can be taken.
        teach: makes the teacher's job; its teacher is left as it is.
        fill: fills the queues.
        device: of everything.
        num_workers: loader processes, as in training.
    """

    reader: Reader
    run: Run
    teach: Callable[[], Extraction]
    fill: Callable[[Objective, Reader], None]
    device: torch.device
    num_workers: int

    def steps(self, way: str) -> Iterator[Report]:
        """Take the steps of one of WAYS."""
        return WAYS[way](self)

    def _objective(self, run: Run, kind: type[Objective] = Objective) -> Objective:
        objective = build_objective(run, self.reader.spec, self.device, kind)
        self.fill(objective, self.reader)
        return objective

    def _take(self, objective: Objective, batches: Iterable[Batch]) -> Iterator[Report]:
        return take_steps(objective, self.run.training, batches)

    def _stream(self, needs: tuple[str, ...] = ()) -> Iterator[Batch]:
        return stream(
            self.reader,
            seed=self.run.seed,
            batch_size=self.run.training.batch_size,
            steps=range(self.run.training.steps),
            device=self.device,
            num_workers=self.num_workers,
            needs=needs,
            augment=self.run.training.augment,
            accumulate=self.run.training.accumulate,
        )

    def _ce(self) -> Iterator[Report]:
        return self._take(
            self._objective(self.run.model_copy(update={"method": "ce"})), self._stream()
        )

    def _offline(self) -> Iterator[Report]:
        objective = self._objective(self.run)
        return self._take(objective, self._stream(objective.needs))

    def _live(self) -> Iterator[Report]:
        asked = map(partial(ask, self.teach()), self._stream())
        return self._take(self._objective(self.run), asked)

    def _online(self) -> Iterator[Report]:
        objective, job = self._objective(self.run, PublicCode), self.teach()
        job = replace(job, teacher=copy.deepcopy(job.teacher))
        keep_contiguous(objective.modules["student"])
        keep_contiguous(job.teacher)
        return self._take(objective, map(partial(ask, job), self._stream()))


# Way of stepping -> its steps: labels alone; CIRKD from the store; the same objective with the
# teacher in the loop; the teacher in the loop and everything as the paper's public code does it.
WAYS: dict[str, Callable[[Rivals], Iterator[Report]]] = {
    "ce": Rivals._ce,
    "offline": Rivals._offline,
    "live": Rivals._live,
    "online": Rivals._online,
}


def keep_contiguous(network: nn.Module) -> None:
    """Make a channels-last network compute in torch's default memory format."""
    network.to(memory_format=torch.contiguous_format)
    network.register_forward_pre_hook(lambda module, images: (images[0].contiguous(),))


def step_medians(rivals: Rivals, num_rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of a step of every way, interleaved; the offline step's share of waiting.

    The wait is counted over steps in a row, after those whose batches lay ready because other
    ways had their turn.
    """
    warm_up = PREFETCH_FACTOR * rivals.num_workers
    training = rivals.run.training.model_copy(
        update={"steps": 1 + num_rounds + warm_up + NUM_WAIT_STEPS}
    )
    rivals = replace(rivals, run=rivals.run.model_copy(update={"training": training}))
    steps = {way: rivals.steps(way) for way in WAYS}
    seconds = interleaved_medians(
        {way: partial(finish_step, reports) for way, reports in steps.items()}, num_rounds
    )
    for _ in range(warm_up):
        finish_step(steps["offline"])
    start = time.perf_counter()
    waits = [finish_step(steps["offline"]).wait_s for _ in range(NUM_WAIT_STEPS)]
    return seconds, sum(waits) / (time.perf_counter() - start)


def finish_step(steps: Iterator[Report]) -> Report:
    """Take the next step and wait for the device."""
    report = next(steps)
    report.total.item()
    return report
