"""What terms keep beside the student: modules that learn with it, queues, a critic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.config.params import Distillation
from pipeline.config.params import Student as Run
from pipeline.distillation.discriminator import Adversary
from pipeline.losses.cirkd import Projector
from pipeline.losses.cirkdv2 import ContextAdapter
from pipeline.losses.fitnet import Adapter
from pipeline.memory.bank_memory import Bank
from pipeline.memory.channel_memory import ChannelMemory
from pipeline.memory.queue_memory import Memory
from pipeline.runtime.distributed import Ranks
from store.schema import StoreSpec

# name -> builder from the student's channels, the store's spec, the run, the device and the ranks.
Builder = Callable[[int, StoreSpec, Run, torch.device, Ranks], Any]


def _between(module: Callable[[int, int], torch.nn.Module]) -> Builder:
    """A module from the student's channels to the teacher's."""
    return lambda channels, spec, run, device, ranks: module(channels, spec.feature_channels).to(
        device
    )


def _of_the_store(memories: Callable[[Distillation], Callable[..., Any]]) -> Builder:
    """A memory of the teacher's embeddings, of the kind that the settings choose."""
    return lambda channels, spec, run, device, ranks: memories(run.distillation)(
        spec, run.distillation, run.seed, device, ranks
    )


MEMORIES: dict[str, type[Memory] | type[Bank]] = {"queue": Memory, "bank": Bank}


COMPANIONS: dict[str, Builder] = {
    "projector": _between(Projector),
    "channel_projector": _between(Projector),
    "cwd_adapter": _between(Adapter),
    "fitnet_adapter": _between(Adapter),
    "context_adapter": _between(ContextAdapter),
    "memory": _of_the_store(lambda settings: MEMORIES[settings.memory]),
    "channels": _of_the_store(lambda settings: ChannelMemory),
    "adversary": lambda channels, spec, run, device, ranks: Adversary(
        spec.num_classes, run.seed, device, ranks
    ),
}
