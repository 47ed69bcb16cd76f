"""How every distillation term is computed on one step, and what it keeps beside the student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipeline.config.params import DistillationConfig
from pipeline.distillation.components import (
    CHANNEL_PROJECTOR,
    CHANNELS,
    CONTEXT_ADAPTER,
    CWD_ADAPTER,
    DISCRIMINATOR,
    FITNET_ADAPTER,
    MEMORY,
    PROJECTOR,
    Component,
    Components,
)
from pipeline.loading.batch import Batch, Targets
from pipeline.losses import at, cirkd, cirkdv2, cwd, dsd, fitnet, ifvd, kd, skd
from pipeline.memory.contrast_memory import Kind
from pipeline.models.network import Output
from pipeline.ops.attention_map import power
from pipeline.ops.mean import Mean
from pipeline.ops.pooling import CHANNEL_POOL, mean_pool
from pipeline.ops.subspace import lift
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks

SPATIAL_TEMPERATURE = 4.0  # of CWD and of CSD


@dataclass(frozen=True)
class Step:
    """One batch, the student's output for it, and what the terms compare it with.

    Attributes:
        batch: with its targets.
        output: of the student.
        settings: temperatures and numbers of anchors.
        components: what the terms keep beside the student, each by its definition.
        generator: draws anchors where only some are wanted.
        basis: B [D, r] of the subspace that the store keeps features in, if it does.
        ranks: among which a batch is sharded; contrast may come from all of them.
    """

    batch: Batch
    output: Output
    settings: DistillationConfig
    components: Components
    generator: torch.Generator
    basis: Tensor | None = None
    ranks: Ranks = SINGLE_PROCESS

    @property
    def targets(self) -> Targets:
        """Return the teacher's targets for the batch."""
        assert self.batch.targets is not None, "a distillation term needs a teacher's targets"
        return self.batch.targets

    @property
    def valid(self) -> Tensor:
        """Tell where the view lies on its image, bool [B, h, w]."""
        return self.batch.grid_valid

    @property
    def teacher_features(self) -> Tensor:
        """Return the teacher's features in its own channels, [B, D, h, w].

        Terms of similarities alone take the stored ones, `targets.features`: an orthonormal basis
        changes no similarity.
        """
        return lift(self.targets.features, self.basis)

    @cached_property
    def projected(self) -> Tensor:
        """Project student features to the stored channels, once for all terms."""
        projected: Tensor = self.components[PROJECTOR](self.output.features)
        return projected

    @cached_property
    def channels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pool student (then projected) and teacher maps, and tell which cells count."""
        student, cells = mean_pool(self.output.features, self.valid, CHANNEL_POOL)
        teacher, _ = mean_pool(self.targets.features, self.valid, CHANNEL_POOL)
        return self.components[CHANNEL_PROJECTOR](student), teacher, cells


def _kd(step: Step) -> Mean:
    temperature = step.settings.temperature
    return kd.kd(step.output.logits, step.targets.logits, step.valid, temperature=temperature)


def _minibatch_pixel(step: Step) -> Mean:
    across = step.settings.cross_rank_contrast and step.ranks.size > 1
    return cirkd.minibatch_pixel(
        step.output.features,
        step.targets.features,
        step.valid,
        temperature=step.settings.similarity_temperature,
        num_anchors=step.settings.minibatch_anchors,
        generator=step.generator,
        gather=step.ranks.gather if across else None,
    )


def _memory(kind: Kind) -> Callable[[Step], Mean]:
    """Compare with the embeddings of one kind that the memory draws."""

    def compute(step: Step) -> Mean:
        return cirkd.memory(
            step.projected,
            step.targets.features,
            step.batch.anchors,
            step.components[MEMORY].sample(kind, step.batch),
            temperature=step.settings.similarity_temperature,
            num_anchors=step.settings.memory_anchors,
            generator=step.generator,
        )

    return compute


def _skd_pairwise(step: Step) -> Mean:
    return skd.pairwise(step.output.features, step.teacher_features, step.valid)


def _skd_holistic(step: Step) -> Mean:
    discriminator = step.components[DISCRIMINATOR]
    return discriminator.step(step.output.logits, step.targets.logits, step.valid)


def _ifvd(step: Step) -> Mean:
    labels, num_classes = step.batch.grid_labels, step.output.logits.shape[1]
    return ifvd.ifvd(step.output.features, step.targets.features, labels, num_classes)


def _cwd_logits(step: Step) -> Mean:
    return cwd.cwd(step.output.logits, step.targets.logits, step.valid, SPATIAL_TEMPERATURE)


def _cwd_features(step: Step) -> Mean:
    student = step.components[CWD_ADAPTER](step.output.features)
    return cwd.cwd(student, step.teacher_features, step.valid, SPATIAL_TEMPERATURE)


def _at(step: Step) -> Mean:
    return at.at(step.output.features, step.targets.features, step.valid)


def _fitnet(step: Step) -> Mean:
    student = step.components[FITNET_ADAPTER](step.output.features)
    return fitnet.fitnet(student, step.teacher_features, step.valid)


def _dsd_csd(step: Step) -> Mean:
    return dsd.csd(step.output.logits, step.targets.logits, step.valid, SPATIAL_TEMPERATURE)


def _dsd_psd(step: Step) -> Mean:
    output, targets = step.output, step.targets
    student = [power(x) for x in (output.auxiliary_logits, output.features, output.logits)]
    # The stored map is normalised already; its squares have no other use here.
    teacher = [targets.auxiliary_attention, power(targets.features), power(targets.logits)]
    return dsd.psd(student, teacher, step.valid)


def _channel_minibatch(step: Step) -> Mean:
    return cirkdv2.channel_minibatch(*step.channels, step.settings.similarity_temperature)


def _channel_memory(step: Step) -> Mean:
    contrast = step.components[CHANNELS].sample("channel", step.batch)
    temperature = step.settings.similarity_temperature
    return cirkdv2.channel_memory(*step.channels, contrast, temperature)


def _channel_mse(step: Step) -> Mean:
    return cirkdv2.channel_mse(*step.channels)


def _contextual_fitnet(step: Step) -> Mean:
    adapter, output = step.components[CONTEXT_ADAPTER], step.output
    return cirkdv2.contextual_fitnet(adapter, output.features, step.teacher_features, step.valid)


@dataclass(frozen=True)
class Computation:
    """How a term is computed.

    Attributes:
        compute: maps a step to the term's mean.
        components: what it keeps beside the student; `compute` may ask for no others.
    """

    compute: Callable[[Step], Mean]
    # Any: components of every type; each term asks for its own by name, and mypy checks it there.
    components: tuple[Component[Any], ...] = ()


# Term of `pipeline.config.methods.TERMS` -> how it is computed.
COMPUTATIONS: dict[str, Computation] = {
    "kd": Computation(_kd),
    "minibatch_pixel": Computation(_minibatch_pixel),
    "memory_pixel": Computation(_memory("pixel"), (PROJECTOR, MEMORY)),
    "memory_region": Computation(_memory("region"), (PROJECTOR, MEMORY)),
    "skd_pairwise": Computation(_skd_pairwise),
    "skd_holistic": Computation(_skd_holistic, (DISCRIMINATOR,)),
    "ifvd": Computation(_ifvd),
    "cwd_logits": Computation(_cwd_logits),
    "cwd_features": Computation(_cwd_features, (CWD_ADAPTER,)),
    "at": Computation(_at),
    "fitnet": Computation(_fitnet, (FITNET_ADAPTER,)),
    "dsd_csd": Computation(_dsd_csd),
    "dsd_psd": Computation(_dsd_psd),
    "channel_minibatch": Computation(_channel_minibatch, (CHANNEL_PROJECTOR,)),
    "channel_memory": Computation(_channel_memory, (CHANNEL_PROJECTOR, CHANNELS)),
    "channel_mse": Computation(_channel_mse, (CHANNEL_PROJECTOR,)),
    "contextual_fitnet": Computation(_contextual_fitnet, (CONTEXT_ADAPTER,)),
}
