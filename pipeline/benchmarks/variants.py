"""One run stepped in four variants: labels alone, from the store, and with the teacher in it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
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
from pipeline.distillation.label_terms import label_terms
from pipeline.distillation.objective import Objective
from pipeline.extraction.job import Extraction
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.loading.workers import PREFETCH_FACTOR
from pipeline.losses.kd import kd
from pipeline.memory.contrast_memory import ContrastMemory, Kind
from pipeline.models.network import Network
from pipeline.ops.embedding import pixel_embeddings
from pipeline.runtime.precision import precision_scope
from pipeline.runtime.rng import torch_generator
from pipeline.training.steps import StepResult
from store.reader import Reader

# Steps of the offline run, in a row, over which its wait for batches is counted.
NUM_WAIT_STEPS = 6


@dataclass(frozen=True)
class Setting:
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


def ce(setting: Setting) -> Iterator[StepResult]:
    """Take steps on labels alone."""
    # Without other weights of CIRKD's terms.
    alone = setting.config.model_copy(update={"method": "ce", "terms": None})
    objective = _build(setting, alone)
    return take_steps(objective, setting.config.training, _stream(setting))


def offline(setting: Setting) -> Iterator[StepResult]:
    """Take CIRKD's steps from the store."""
    objective = _build(setting)
    return take_steps(objective, setting.config.training, _stream(setting, objective.needs))


def online(setting: Setting) -> Iterator[StepResult]:
    """Take the same steps with the teacher in the loop."""
    batches = map(partial(query_teacher, setting.teach()), _stream(setting))
    return take_steps(_build(setting), setting.config.training, batches)


def public_code(setting: Setting) -> Iterator[StepResult]:
    """Take steps with the teacher in the loop, everything computed as the paper's public code."""
    objective, job = _build(setting), setting.teach()
    job = replace(job, teacher=copy.deepcopy(job.teacher))
    keep_contiguous(objective.modules["student"])
    keep_contiguous(job.teacher)
    batches = map(partial(query_teacher, job), _stream(setting))
    terms = public_terms(objective, setting.config, setting.device)
    return take_steps(objective, setting.config.training, batches, terms)


VARIANTS: dict[str, Callable[[Setting], Iterator[StepResult]]] = {
    "ce": ce,
    "offline": offline,
    "online": online,
    "public_code": public_code,
}


def _build(setting: Setting, config: StudentConfig | None = None) -> Objective:
    objective = build_objective(config or setting.config, setting.reader.spec, setting.device)
    setting.fill(objective, setting.reader)
    return objective


def _stream(setting: Setting, needs: tuple[str, ...] = ()) -> Iterator[Batch]:
    loading = LoaderConfig.of_student(setting.config, needs, setting.num_workers)
    return stream(setting.reader, loading, range(setting.config.training.steps), setting.device)


def public_terms(
    objective: Objective, config: StudentConfig, device: torch.device
) -> Callable[[Batch], dict[str, Tensor]]:
    """Compute CIRKD's terms as the paper's public code does: whole matrices, by plain autograd.

    It knows neither padding nor unusable columns; where there are none, the values are the same.
    Where a run draws anchors, they are so many of every image, the same positions in each.

    Args:
        objective: whose student, projector and memory are used.
        config: of its run.
        device: of everything.

    Returns:
        What maps a batch with targets to every term's mean, unweighted.
    """
    settings, precision = config.distillation, config.training.precision
    tau, wanted = settings.similarity_temperature, settings.minibatch_anchors
    modules, memory = objective.modules, objective.parts[MEMORY.name]
    network = modules["student"]
    assert isinstance(memory, ContrastMemory)
    assert isinstance(network, Network)
    generator = torch_generator(config.seed, "anchor places", device=device)

    def compute_terms(batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None, "CIRKD needs a teacher's targets"
        targets = batch.targets
        with precision_scope(device, precision):
            output = network(network.normalise(batch.image))
            terms = {
                name: one.value for name, one in label_terms(network, output, batch.labels).items()
            }
            valid, temperature = batch.grid_valid, settings.temperature
            terms["kd"] = kd(output.logits, targets.logits, valid, temperature=temperature).value
            student, teacher = map(pixel_embeddings, (output.features, targets.features))
            rows = draw_rows(student, wanted, generator)
            terms["minibatch_pixel"] = naive_minibatch(
                student[:, rows], teacher[:, rows], student, teacher, tau
            )
            projected = pixel_embeddings(modules["projector"](output.features))
            anchors = projected[:, rows].flatten(0, 1), teacher[:, rows].flatten(0, 1)
            kinds: tuple[Kind, ...] = ("pixel", "region")
            for kind in kinds:
                contrast = memory.sample(kind, batch).embeddings
                terms[f"memory_{kind}"] = naive_kl(*anchors, contrast, contrast, tau)
        memory.push(batch)
        return terms

    return compute_terms


def draw_rows(embeddings: Tensor, wanted: int | None, generator: torch.Generator) -> Tensor | slice:
    """Draw the positions of anchors, the same in every image of [B, A, D]; None wants all."""
    if wanted is None:
        return slice(None)
    order = torch.randperm(embeddings.shape[1], generator=generator, device=generator.device)
    return order[: wanted // len(embeddings)]


def keep_contiguous(network: nn.Module) -> None:
    """Make a channels-last network compute in torch's default memory format."""
    network.to(memory_format=torch.contiguous_format)
    network.register_forward_pre_hook(lambda module, images: (images[0].contiguous(),))


def step_medians(setting: Setting, num_rounds: int) -> tuple[dict[str, float], float]:
    """Time every variant's step, interleaved, and the share of the offline step that is a wait.

    The wait is counted over steps in a row, after those whose batches lay ready because other
    variants had their turn.

    Returns:
        Median seconds by variant, and the share.
    """
    warm_up = PREFETCH_FACTOR * setting.num_workers
    training = setting.config.training.model_copy(
        update={"steps": 1 + num_rounds + warm_up + NUM_WAIT_STEPS}
    )
    setting = replace(setting, config=setting.config.model_copy(update={"training": training}))
    steps = {name: take(setting) for name, take in VARIANTS.items()}
    seconds = interleaved_medians(
        {name: partial(finish_step, results) for name, results in steps.items()}, num_rounds
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
