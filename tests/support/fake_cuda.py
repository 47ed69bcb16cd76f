"""A GPU's mistakes without a GPU: fake tensors that live on cuda:0 and hold no values.

An operation that mixes devices raises, and so does whatever asks the host for a value (`.item()`,
`.tolist()`, `bool(...)`, shapes that depend on values). What fake tensors let pass (`.cpu()`, an
index left on the CPU) `NoHostCopy` refuses. A backward pass and a fused optimizer need a real GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.cuda.amp import common
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.models import network

CUDA = torch.device("cuda", 0)
Moved = TypeVar("Moved")


class NoHostCopy(TorchDispatchMode):
    """Refuses copies to the host, and tensors of the host beside those of the GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # torch's own signature
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = func(*args, **(kwargs or {}))
        on_gpu = any(x.device.type == "cuda" for x in given)
        results = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
        if on_gpu and any(x.device.type == "cpu" for x in results):
            raise RuntimeError(f"{func}: copies to the host, which waits for the GPU")
        if on_gpu and any(x.device.type == "cpu" and x.ndim for x in given):
            raise RuntimeError(f"{func}: takes a tensor of the host beside one of the GPU")
        return made


class FakeGenerator:
    """Stands for a generator on the GPU, of which there is none here."""

    device = CUDA


@contextmanager
def fake_cuda(*, compiling: bool = False) -> Iterator[None]:
    """Within, tensors made on cuda:0 are fake, and what a real GPU would wait for raises.

    Args:
        compiling: without `NoHostCopy`: torch.compile traces nothing below a mode of another's.
    """
    network._mean_and_std.cache_clear()
    with ExitStack() as patches:
        for name in ("rand", "randperm"):
            function = _without_generator(getattr(torch, name))
            patches.enter_context(patch.object(torch, name, function))
        # Autocast asks for a real GPU, and switches itself off without.
        patches.enter_context(patch.object(common, "amp_definitely_not_available", lambda: False))
        patches.enter_context(patch.object(torch.cuda, "is_bf16_supported", lambda *_: True))
        patches.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        if not compiling:
            patches.enter_context(NoHostCopy())
        yield
    network._mean_and_std.cache_clear()


def _without_generator(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def draw(*args: Any, generator: Any = None, **options: Any) -> Tensor:
        if isinstance(generator, FakeGenerator):
            return function(*args, **options)
        return function(*args, generator=generator, **options)

    return draw


def to_cuda(value: Moved, seen: dict[int, Any] | None = None) -> Moved:
    """Replace, within `fake_cuda`, every tensor, device and generator that an object holds.

    Objects of the project are changed in place; tensors keep shape, strides, dtype and gradients.
    """
    seen = {} if seen is None else seen
    if id(value) not in seen:
        seen[id(value)] = value
        seen[id(value)] = _move(value, seen)
    return seen[id(value)]


def _move(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        fake = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=CUDA)
        is_parameter = isinstance(value, nn.Parameter)
        return nn.Parameter(fake, value.requires_grad) if is_parameter else fake
    if isinstance(value, torch.device):
        return CUDA
    if isinstance(value, torch.Generator):
        return FakeGenerator()
    if isinstance(value, dict):
        value.update({key: to_cuda(one, seen) for key, one in value.items()})
    elif isinstance(value, list):
        value[:] = [to_cuda(one, seen) for one in value]
    elif type(value) is tuple:
        return tuple(to_cuda(one, seen) for one in value)
    elif isinstance(value, nn.Module) or type(value).__module__.startswith("pipeline."):
        to_cuda(getattr(value, "__dict__", {}), seen)
    return value
