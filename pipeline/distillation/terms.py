"""Every distillation term by name: its value on one step, what it reads, what it keeps beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipeline.config.params import DistillationConfig
from pipeline.loading.batch import Batch, Targets
from pipeline.losses import at, cirkd, cirkdv2, cwd, dsd, fitnet, ifvd, kd, skd
from pipeline.models.network import Output
from pipeline.ops.attention_map import power
from pipeline.ops.mean import Mean
from pipeline.ops.pooling import CHANNEL_POOL, mean_pool
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks

SPATIAL_TEMPERATURE = 4.0  # of CWD and of CSD


@dataclass(frozen=True)
class Step:
    """One batch, the student's output for it, and what the terms compare it with.

    Attributes:
        batch: with its targets.
        output: of the student.
        settings: temperatures and numbers of anchors.
        components: what the terms keep beside the student, by name in COMPONENTS.
        generator: draws anchors where only some are wanted.
        ranks: among which a batch is sharded; contrast may come from all of them.
    """

    batch: Batch
    output: Output
    settings: DistillationConfig
    components: Mapping[str, Any]
    generator: torch.Generator
    ranks: Ranks = SINGLE_PROCESS

    @property
    def targets(self) -> Targets:
        """The teacher's targets for the batch."""
        assert self.batch.targets is not None, "a distillation term needs a teacher's targets"
        return self.batch.targets

    @property
    def valid(self) -> Tensor:
        """Where the view lies on its image, bool [B, h, w]."""
        return self.batch.grid_valid

    @cached_property
    def projected(self) -> Tensor:
        """Student features in the teacher's channels [B, D, h, w], once for every memory term."""
        projected: Tensor = self.components["projector"](self.output.features)
        return projected

    @cached_property
    def channels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled student (projected) and teacher maps, and which cells count, for channel terms."""
        student, cells = mean_pool(self.output.features, self.valid, CHANNEL_POOL)
        teacher, _ = mean_pool(self.targets.features, self.valid, CHANNEL_POOL)
        return self.components["channel_projector"](student), teacher, cells


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


def _memory(contrast: str) -> Callable[[Step], Mean]:
    """The memory term against what a method of the memory draws: pixels or regions."""

    def compute(step: Step) -> Mean:
        return cirkd.memory(
            step.projected,
            step.targets.features,
            step.batch.anchors,
            getattr(step.components["memory"], contrast)(step.batch),
            temperature=step.settings.similarity_temperature,
            num_anchors=step.settings.memory_anchors,
            generator=step.generator,
        )

    return compute


def _skd_pairwise(step: Step) -> Mean:
    return skd.pairwise(step.output.features, step.targets.features, step.valid)


def _skd_holistic(step: Step) -> Mean:
    discriminator = step.components["discriminator"]
    term: Mean = discriminator.step(step.output.logits, step.targets.logits, step.valid)
    return term


def _ifvd(step: Step) -> Mean:
    labels, num_classes = step.batch.grid_labels, step.output.logits.shape[1]
    return ifvd.ifvd(step.output.features, step.targets.features, labels, num_classes)


def _cwd_logits(step: Step) -> Mean:
    return cwd.cwd(step.output.logits, step.targets.logits, step.valid, SPATIAL_TEMPERATURE)


def _cwd_features(step: Step) -> Mean:
    student = step.components["cwd_adapter"](step.output.features)
    return cwd.cwd(student, step.targets.features, step.valid, SPATIAL_TEMPERATURE)


def _at(step: Step) -> Mean:
    return at.at(step.output.features, step.targets.features, step.valid)


def _fitnet(step: Step) -> Mean:
    student = step.components["fitnet_adapter"](step.output.features)
    return fitnet.fitnet(student, step.targets.features, step.valid)


def _dsd_csd(step: Step) -> Mean:
    return dsd.csd(step.output.logits, step.targets.logits, step.valid, SPATIAL_TEMPERATURE)


def _dsd_psd(step: Step) -> Mean:
    output, targets = step.output, step.targets
    auxiliary = output.auxiliary
    assert auxiliary is not None, "Objective refuses students without an auxiliary head"
    student = [power(x) for x in (auxiliary, output.features, output.logits)]
    # The stored map is normalised already; its squares have no other use here.
    teacher = [targets.auxiliary_attention, power(targets.features), power(targets.logits)]
    return dsd.psd(student, teacher, step.valid)


def _channel_minibatch(step: Step) -> Mean:
    return cirkdv2.channel_minibatch(*step.channels, step.settings.similarity_temperature)


def _channel_memory(step: Step) -> Mean:
    contrast = step.components["channels"].contrast(step.batch)
    temperature = step.settings.similarity_temperature
    return cirkdv2.channel_memory(*step.channels, contrast, temperature)


def _channel_mse(step: Step) -> Mean:
    return cirkdv2.channel_mse(*step.channels)


def _contextual_fitnet(step: Step) -> Mean:
    adapter, output = step.components["context_adapter"], step.output
    return cirkdv2.contextual_fitnet(adapter, output.features, step.targets.features, step.valid)


@dataclass(frozen=True)
class Term:
    """A term: how it is computed, which stored targets it reads, what it keeps beside the student.

    Attributes:
        compute: its mean on one step.
        needs: names of `store.arrays.TARGETS`.
        components: keys of `pipeline.distillation.components.COMPONENTS`.
        auxiliary: whether the student must have an auxiliary head.
    """

    compute: Callable[[Step], Mean]
    needs: tuple[str, ...]
    components: tuple[str, ...] = ()
    auxiliary: bool = False


FEATURES = ("features",)
LOGITS = ("logits",)
MEMORY = ("features", "regions")

TERMS: dict[str, Term] = {
    "kd": Term(_kd, LOGITS),
    "minibatch_pixel": Term(_minibatch_pixel, FEATURES),
    "memory_pixel": Term(_memory("pixel_contrast"), MEMORY, ("projector", "memory")),
    "memory_region": Term(_memory("region_contrast"), MEMORY, ("projector", "memory")),
    "skd_pairwise": Term(_skd_pairwise, FEATURES),
    "skd_holistic": Term(_skd_holistic, LOGITS, ("discriminator",)),
    "ifvd": Term(_ifvd, FEATURES),
    "cwd_logits": Term(_cwd_logits, LOGITS),
    "cwd_features": Term(_cwd_features, FEATURES, ("cwd_adapter",)),
    "at": Term(_at, FEATURES),
    "fitnet": Term(_fitnet, FEATURES, ("fitnet_adapter",)),
    "dsd_csd": Term(_dsd_csd, LOGITS),
    "dsd_psd": Term(_dsd_psd, ("auxiliary_attention", "logits", "features"), auxiliary=True),
    "channel_minibatch": Term(_channel_minibatch, FEATURES, ("channel_projector",)),
    "channel_memory": Term(_channel_memory, FEATURES, ("channel_projector", "channels")),
    "channel_mse": Term(_channel_mse, FEATURES, ("channel_projector",)),
    "contextual_fitnet": Term(_contextual_fitnet, FEATURES, ("context_adapter",)),
}
