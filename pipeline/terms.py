"""Every distillation term by name: its value on one step, and what learns beside the student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.losses.at import at
from pipeline.losses.cirkd import Projector, memory, minibatch_pixel
from pipeline.losses.cirkdv2 import (
    ContextAdapter,
    channel_minibatch,
    channel_mse,
    contextual_fitnet,
)
from pipeline.losses.cwd import cwd
from pipeline.losses.dsd import csd
from pipeline.losses.fitnet import Adapter, fitnet
from pipeline.losses.ifvd import ifvd
from pipeline.losses.kd import kd
from pipeline.losses.mean import Mean
from pipeline.losses.pooling import mean_pool
from pipeline.losses.skd import pairwise
from pipeline.memory import Memory
from pipeline.network import Output
from pipeline.params import Distillation
from pipeline.queues import Contrast
from pipeline.stream import Batch, Targets

CHANNEL_POOL = 4  # CIRKDV2 compares channels on maps pooled 4x4
CWD_TEMPERATURE = 4.0


@dataclass(frozen=True)
class Step:
    """One batch, what the student said of it, and what the terms compare it with.

    Attributes:
        batch: with its targets.
        output: of the student.
        settings: temperatures and numbers of anchors.
        modules: what learns beside the student, by name (BESIDE).
        memory: the queues, where a term needs them.
        generator: draws anchors where only some are wanted.
    """

    batch: Batch
    output: Output
    settings: Distillation
    modules: nn.ModuleDict
    memory: Memory | None
    generator: torch.Generator

    @property
    def targets(self) -> Targets:
        """What the teacher said."""
        assert self.batch.targets is not None, "a distillation term needs a teacher's targets"
        return self.batch.targets

    @property
    def inside(self) -> Tensor:
        """Where the view lies on its image, bool [B, h, w]."""
        return self.batch.grid_inside

    @cached_property
    def projected(self) -> Tensor:
        """Student features in the teacher's channels [B, D, h, w], once for every memory term."""
        projected: Tensor = self.modules["projector"](self.output.features)
        return projected

    @cached_property
    def channels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled student (projected) and teacher maps, and which cells count, for channel terms."""
        student, cells = mean_pool(self.output.features, self.inside, CHANNEL_POOL)
        teacher, _ = mean_pool(self.targets.features, self.inside, CHANNEL_POOL)
        return self.modules["channel_projector"](student), teacher, cells


def _minibatch_pixel(step: Step) -> Mean:
    return minibatch_pixel(
        step.output.features,
        step.targets.features,
        step.inside,
        temperature=step.settings.similarity_temperature,
        num_anchors=step.settings.minibatch_anchors,
        generator=step.generator,
    )


def _memory(draw: Callable[[Memory, Batch], Contrast]) -> Callable[[Step], Mean]:
    """The memory term against what `draw` takes from the memory: pixels or regions."""

    def compute(step: Step) -> Mean:
        assert step.memory is not None
        return memory(
            step.projected,
            step.targets.features,
            step.batch.anchors,
            draw(step.memory, step.batch),
            temperature=step.settings.similarity_temperature,
            num_anchors=step.settings.memory_anchors,
            generator=step.generator,
        )

    return compute


def _kd(step: Step) -> Mean:
    temperature = step.settings.temperature
    return kd(step.output.logits, step.targets.logits, step.inside, temperature=temperature)


def _cwd_logits(step: Step) -> Mean:
    return cwd(step.output.logits, step.targets.logits, step.inside, CWD_TEMPERATURE)


def _cwd_features(step: Step) -> Mean:
    student = step.modules["cwd_adapter"](step.output.features)
    return cwd(student, step.targets.features, step.inside, CWD_TEMPERATURE)


def _ifvd(step: Step) -> Mean:
    labels, num_classes = step.batch.grid_labels, step.targets.logits.shape[1]
    return ifvd(step.output.features, step.targets.features, labels, num_classes)


def _fitnet(step: Step) -> Mean:
    student = step.modules["fitnet_adapter"](step.output.features)
    return fitnet(student, step.targets.features, step.inside)


def _contextual_fitnet(step: Step) -> Mean:
    context = step.modules["context_adapter"]
    assert isinstance(context, ContextAdapter)
    return contextual_fitnet(context, step.output.features, step.targets.features, step.inside)


@dataclass(frozen=True)
class Term:
    """How a term is computed, and the module it needs beside the student (a key of BESIDE)."""

    compute: Callable[[Step], Mean]
    module: str | None = None
    memory: bool = False


TERMS: dict[str, Term] = {
    "kd": Term(_kd),
    "minibatch_pixel": Term(_minibatch_pixel),
    "memory_pixel": Term(_memory(Memory.pixel_contrast), "projector", memory=True),
    "memory_region": Term(_memory(Memory.region_contrast), "projector", memory=True),
    "skd_pairwise": Term(
        lambda step: pairwise(step.output.features, step.targets.features, step.inside)
    ),
    "ifvd": Term(_ifvd),
    "cwd_logits": Term(_cwd_logits),
    "cwd_features": Term(_cwd_features, "cwd_adapter"),
    "at": Term(lambda step: at(step.output.features, step.targets.features, step.inside)),
    "fitnet": Term(_fitnet, "fitnet_adapter"),
    "dsd_csd": Term(lambda step: csd(step.output.logits, step.targets.logits, step.inside)),
    "channel_minibatch": Term(
        lambda step: channel_minibatch(*step.channels, step.settings.similarity_temperature),
        "channel_projector",
    ),
    "channel_mse": Term(lambda step: channel_mse(*step.channels), "channel_projector"),
    "contextual_fitnet": Term(_contextual_fitnet, "context_adapter"),
}

# What learns beside the student: (student's channels, teacher's channels) -> module.
BESIDE: dict[str, Callable[[int, int], nn.Module]] = {
    "projector": Projector,
    "channel_projector": Projector,
    "cwd_adapter": Adapter,
    "fitnet_adapter": Adapter,
    "context_adapter": ContextAdapter,
}
