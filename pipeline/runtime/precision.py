"""Half precision: the scope it is computed in, and what it costs on a device."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

NUM_RUNS = 3


@contextlib.contextmanager
def precision_scope(device: torch.device, precision: str) -> Iterator[None]:
    """Run a forward pass in float32, or with bfloat16 or float16 autocast."""
    if precision == "float32":  # no scope at all, so that exported graphs have none
        yield
        return
    with torch.autocast(device.type, dtype=getattr(torch, precision)):
        yield


def half_precision_cost(device: torch.device, precision: str) -> float:
    """Measure a small 3x3 convolution's forward and backward pass in `precision` over float32.

    It takes a few milliseconds where half precision is fast, 0.2 s where it is 17 times as slow.

    Args:
        device: to measure on.
        precision: bfloat16 or float16.

    Returns:
        Seconds in `precision` / seconds in float32, the least of interleaved runs each; above 1,
        half precision is the slower.
    """
    # Large enough on each kind of device that the convolution outweighs its launch.
    batch, channels, side = (2, 64, 16) if device.type == "cpu" else (16, 256, 64)
    image, weight = (
        torch.ones(shape, device=device).to(memory_format=torch.channels_last).requires_grad_()
        for shape in ((batch, channels, side, side), (channels, channels, 3, 3))
    )
    measure = partial(_convolve_seconds, image, weight)
    rounds = [(measure(precision), measure("float32")) for _ in range(1 + NUM_RUNS)]
    return min(half for half, _ in rounds[1:]) / min(whole for _, whole in rounds[1:])


def _convolve_seconds(image: Tensor, weight: Tensor, precision: str) -> float:
    start = time.perf_counter()
    with precision_scope(image.device, precision):
        total = functional.conv2d(image, weight, padding=1).float().sum()
    gradients = torch.autograd.grad(total, (image, weight))
    gradients[1].flatten()[0].item()  # waits for the device
    return time.perf_counter() - start
