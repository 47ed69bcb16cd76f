"""Devices by the names that the command line gives them."""

from __future__ import annotations

import os
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
        raise ValueError(f"--device: expected auto, cpu or cuda[:N]; found {name}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device: {name} asked for, but torch sees no GPU; use cpu or auto")
    # float32 is part of a store's identity: convolutions must not round to TF32 behind its back.
    torch.backends.cudnn.allow_tf32 = False
    return device


def pick_slots(name: str) -> list[str]:
    """Return the devices that jobs side by side are dealt: every GPU there is, or the one named."""
    device = pick_device(name)
    if device.type != "cuda" or device.index is not None:
        return [str(device)]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
