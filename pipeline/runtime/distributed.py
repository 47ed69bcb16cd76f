"""The processes of one training: which of them this is, and what they tell each other.

One process, or as many as `torchrun --nproc_per_node N -m stages.train ...` starts. Every rank
takes its shard of each batch, and all of them together take the step that one would have taken.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.runtime.checkpoint import Stateful


class _Sliceable(Protocol):
    """Anything that is sliced along its first axis."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Any: ...  # of its own type, which ndarray leaves open


Whole = TypeVar("Whole", bound=_Sliceable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among the `size` of a training; alone, nothing is sent anywhere.

    Attributes:
        rank: 0..size-1.
        size: how many processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Tell whether this is the process that logs, shows and writes."""
        return self.rank == 0

    @property
    def path(self) -> tuple[int, ...]:
        """Return what ends the name of a random stream of each rank's own; empty for rank 0."""
        return (self.rank,) if self.rank else ()

    def shard(self, whole: Whole) -> Whole:
        """Cut out this rank's part of what all ranks have: equal, contiguous, in rank order."""
        length = len(whole) // self.size
        part: Whole = whole[self.rank * length : (self.rank + 1) * length]
        return part

    def gather(self, part: Tensor) -> Tensor:
        """Join the ranks' parts [n, ...] into [size * n, ...]; each part receives its gradient."""
        if self.size == 1:
            return part
        gathered: Tensor = _Gather.apply(part, self)
        return gathered

    def sum(self, value: Tensor) -> Tensor:
        """Add up a tensor over ranks (no gradient)."""
        total = value.detach().clone()
        if self.size > 1:
            distributed.all_reduce(total)
        return total

    def merge(self, means: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Turn every rank's (total, count) into the means over all that was counted anywhere.

        The values are the same on all ranks. The gradients are of this rank's part times `size`,
        because DistributedDataParallel averages them over the ranks.
        """
        if self.size == 1:
            return {name: total / count.clamp_min(1) for name, (total, count) in means.items()}
        # One exchange for all terms, and none that the host waits for.
        parts = [part.detach().double() for mean in means.values() for part in mean]
        local = torch.stack(parts).view(-1, 2)
        sums = self.sum(local)
        values = {}
        for (name, (own, _)), (total, count) in zip(means.items(), sums, strict=True):
            count = count.clamp_min(1)
            scaled = own * (self.size / count).to(own.dtype)
            values[name] = scaled + ((total / count).to(scaled.dtype) - scaled.detach())
        return values

    def average_gradients(self, module: nn.Module) -> None:
        """Average the gradients of a module that learns outside of DistributedDataParallel."""
        for parameter in module.parameters():
            if self.size > 1 and parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def collect(self, value: Value) -> list[Value]:
        """Return every rank's value, in the order of ranks."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def replicate(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Average gradients over the ranks in every backward pass; on GPUs batch statistics too."""
        if self.size == 1:
            return module
        on_gpu = device.type == "cuda"
        if on_gpu:
            module = synchronise_norms(module)
        # Some encoders keep layers that they do not call (EfficientNet's head); torch warns where
        # there are none.
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        return DistributedDataParallel(
            module, [device] if on_gpu else None, find_unused_parameters=True
        )


def synchronise_norms(module: nn.Module) -> nn.Module:
    """Let batch norms take their statistics from all ranks.

    timm's own conversion: its norms hold the activation, which torch's would drop.
    """
    from timm.layers.norm_act import convert_sync_batchnorm  # takes a second, and few need it

    converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


SINGLE_PROCESS = Ranks()


class _Gather(torch.autograd.Function):
    """Concatenate the parts of all ranks; each rank's gradient comes from all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:  # ctx: a class of torch's own
        ctx.ranks = ranks
        parts = [torch.empty_like(part) for _ in range(ranks.size)]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.shard(ctx.ranks.sum(grad)), None


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started; a process of its own is alone."""
    if "WORLD_SIZE" not in os.environ:
        yield SINGLE_PROCESS
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


class PerRank:
    """A part of a checkpoint that differs between ranks: saved for all, put back to each."""

    def __init__(self, part: Stateful, ranks: Ranks) -> None:
        self._part, self._ranks = part, ranks

    def state_dict(self) -> list[Any]:
        """Return the states of all ranks, of whatever type; all of them must ask."""
        return self._ranks.collect(self._part.state_dict())

    def load_state_dict(self, states: list[Any]) -> None:
        """Put this rank's back; one that was not there goes on as it began."""
        if self._ranks.rank < len(states):
            self._part.load_state_dict(states[self._ranks.rank])
