"""Devices by the names that the command line gives them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """Resolve the --device option to a torch device."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: a GPU for each process
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device: expected auto, cpu or cuda[:N]; found {name}")
    num_devices = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= num_devices:
        raise ValueError(f"--device: {name} asked for, but torch sees {num_devices} GPUs")
    # float32 is part of a store's identity: convolutions must not round to TF32 behind its back.
    torch.backends.cudnn.allow_tf32 = False
    return device


@contextmanager
def tf32_convolutions() -> Iterator[None]:
    """Let float32 convolutions round to TF32 on GPUs that have it: PyTorch's own default."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def pick_slots(name: str) -> list[str]:
    """Return the devices that jobs side by side are dealt: every GPU there is, or the one named."""
    device = pick_device(name)
    if device.type != "cuda" or device.index is not None:
        return [str(device)]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
