"""What a run was made with: recorded beside results, never part of a fingerprint."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import version

import torch

PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "zarr", "numcodecs", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> str | None:
    """Return the git commit of the working folder, with a + if files differ; None without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def describe_device(device: torch.device, num_threads: int | None = None) -> str:
    """Name a device: a GPU's name, or the processor's with its threads, torch's if not given."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {num_threads or torch.get_num_threads()} threads"


def peak_memory_bytes(device: torch.device) -> int:
    """Return this process's peak: allocated GPU memory, or resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
