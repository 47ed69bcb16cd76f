"""What terms keep beside the student: modules that learn with it, memories, a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn

from pipeline.config.params import StudentConfig
from pipeline.distillation.discriminator import LearningDiscriminator
from pipeline.losses.cirkd import Projector
from pipeline.losses.cirkdv2 import ContextAdapter
from pipeline.losses.fitnet import Adapter
from pipeline.memory.bank_memory import BankMemory
from pipeline.memory.channel_memory import ChannelMemory
from pipeline.memory.contrast_memory import ContrastMemory
from pipeline.memory.queue_memory import QueueMemory
from pipeline.runtime.checkpoint import Stateful
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from store.schema import StoreSpec

Built = TypeVar("Built", bound=Stateful)
Module = TypeVar("Module", bound=nn.Module)

MEMORIES: dict[str, type[QueueMemory] | type[BankMemory]] = {
    "queue": QueueMemory,
    "bank": BankMemory,
}
"""The memories of pixels and regions, by the names of `DistillationConfig.memory`."""


@dataclass(frozen=True)
class Setup:
    """What components are built from.

    Attributes:
        student_channels: Ds of the student's features.
        spec: of the store; K classes, D channels of the teacher's features, stored in D or r.
        config: of the run.
        device: where everything lives.
        ranks: among which every batch is sharded.
    """

    student_channels: int
    spec: StoreSpec
    config: StudentConfig
    device: torch.device
    ranks: Ranks = SINGLE_PROCESS


@dataclass(frozen=True)
class Component(Generic[Built]):
    """A thing that a run may keep: the name that its checkpoints know, and how it is built."""

    name: str
    build: Callable[[Setup], Built]


class Components:
    """The components of one run, each found by its definition, and so of a known type."""

    # Any: components of every type, here and in `_built`; `__getitem__` gives the type back.
    def __init__(self, wanted: Iterable[Component[Any]], setup: Setup) -> None:
        # In the order of names: weights are drawn from one generator.
        ordered = sorted(set(wanted), key=lambda component: component.name)
        self._built: dict[str, Any] = {one.name: one.build(setup) for one in ordered}

    def __getitem__(self, component: Component[Built]) -> Built:
        return cast(Built, self._built[component.name])

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Return those that the run's optimizer moves, by name."""
        return {name: one for name, one in self._built.items() if isinstance(one, nn.Module)}

    @property
    def others(self) -> dict[str, Stateful]:
        """Return those that the run's optimizer does not move, by name."""
        return {name: one for name, one in self._built.items() if not isinstance(one, nn.Module)}

    @property
    def memories(self) -> list[ContrastMemory]:
        """Return those that are filled before the first step and pushed to after each."""
        return [one for one in self._built.values() if isinstance(one, ContrastMemory)]


def _between(module: Callable[[int, int], Module]) -> Callable[[Setup], Module]:
    """Build a module from the student's channels to the teacher's own."""
    return lambda setup: module(setup.student_channels, setup.spec.teacher_channels).to(
        setup.device
    )


def _build_projector(setup: Setup) -> Projector:
    """End in the channels that are stored: of the rest nothing meets a contrast embedding."""
    channels = setup.student_channels, setup.spec.teacher_channels, setup.spec.feature_channels
    return Projector(*channels).to(setup.device)


def _build_cwd_adapter(setup: Setup) -> nn.Module:
    """Put a convolution only where channels differ: equal maps are compared as they are."""
    if setup.student_channels == setup.spec.teacher_channels:
        return nn.Identity()
    return _between(Adapter)(setup)


def _build_memory(setup: Setup) -> ContrastMemory:
    settings, seed = setup.config.distillation, setup.config.seed
    return MEMORIES[settings.memory](setup.spec, settings, seed, setup.device, setup.ranks)


def _build_channels(setup: Setup) -> ContrastMemory:
    settings, seed = setup.config.distillation, setup.config.seed
    return ChannelMemory(setup.spec, settings, seed, setup.device, setup.ranks)


def _build_discriminator(setup: Setup) -> LearningDiscriminator:
    num_classes, seed = setup.spec.num_classes, setup.config.seed
    return LearningDiscriminator(num_classes, seed, setup.device, setup.ranks)


PROJECTOR = Component("projector", _build_projector)
CHANNEL_PROJECTOR = Component("channel_projector", _between(Projector))
CWD_ADAPTER = Component("cwd_adapter", _build_cwd_adapter)
FITNET_ADAPTER = Component("fitnet_adapter", _between(Adapter))
CONTEXT_ADAPTER = Component("context_adapter", _between(ContextAdapter))
MEMORY = Component("memory", _build_memory)
CHANNELS = Component("channels", _build_channels)
DISCRIMINATOR = Component("discriminator", _build_discriminator)
