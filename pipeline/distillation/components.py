"""What terms keep beside the student: modules that learn with it, queues, a discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.config.params import DistillationConfig, StudentConfig
from pipeline.distillation.discriminator import LearningDiscriminator
from pipeline.losses.cirkd import Projector
from pipeline.losses.cirkdv2 import ContextAdapter
from pipeline.losses.fitnet import Adapter
from pipeline.memory.bank_memory import Bank
from pipeline.memory.channel_memory import ChannelMemory
from pipeline.memory.queue_memory import Memory
from pipeline.runtime.distributed import Ranks
from store.schema import StoreSpec

# name -> builder from the student's channels, the store's spec, the run, the device and the ranks.
Builder = Callable[[int, StoreSpec, StudentConfig, torch.device, Ranks], Any]


def _between(module: Callable[[int, int], torch.nn.Module]) -> Builder:
    """A module from the student's channels to the teacher's."""
    return lambda channels, spec, config, device, ranks: module(channels, spec.feature_channels).to(
        device
    )


def _of_the_store(memories: Callable[[DistillationConfig], Callable[..., Any]]) -> Builder:
    """A memory of the teacher's embeddings, of the kind that the settings choose."""
    return lambda channels, spec, config, device, ranks: memories(config.distillation)(
        spec, config.distillation, config.seed, device, ranks
    )


MEMORIES: dict[str, type[Memory] | type[Bank]] = {"queue": Memory, "bank": Bank}


COMPONENTS: dict[str, Builder] = {
    "projector": _between(Projector),
    "channel_projector": _between(Projector),
    "cwd_adapter": _between(Adapter),
    "fitnet_adapter": _between(Adapter),
    "context_adapter": _between(ContextAdapter),
    "memory": _of_the_store(lambda settings: MEMORIES[settings.memory]),
    "channels": _of_the_store(lambda settings: ChannelMemory),
    "discriminator": lambda channels, spec, config, device, ranks: LearningDiscriminator(
        spec.num_classes, config.seed, device, ranks
    ),
}
