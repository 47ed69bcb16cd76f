"""Checkpoints that hold everything a run needs to go on, and hashes of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from store.files import reading, replacing


class Stateful(Protocol):
    """Anything whose state, of whatever type torch.save takes, can be saved and put back."""

    def state_dict(self) -> Any:
        """Return everything needed to go on."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Go on from there."""


class GlobalRng:
    """Torch's global random state (dropout) on a device, as a part of a checkpoint."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the CPU, and of the device where it is a GPU, whatever its number."""
        on_gpu = self._device.type == "cuda"
        cuda = [torch.cuda.get_rng_state(self._device)] if on_gpu else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the state back; that of a GPU onto the device."""
        torch.set_rng_state(state["cpu"].cpu())
        if self._device.type == "cuda" and state["cuda"]:
            torch.cuda.set_rng_state(state["cuda"][0].cpu(), self._device)


class SavedGenerator:
    """An explicit generator as a part of a checkpoint."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> Tensor:
        """Return the state of the generator."""
        return self._generator.get_state()

    def load_state_dict(self, state: Tensor) -> None:
        """Go on from there."""
        self._generator.set_state(state.cpu())


def save_torch(value: object, path: Path) -> None:
    """Write `value` with torch.save; the file appears by os.replace."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        # Through a file object, because torch.save writes a path's own name into the archive.
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # That the archive has no end, it says, where the disk has said before why.
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else error from None


def load_torch(path: Path, what: str, hint: str) -> Any:  # of whatever type was saved
    """Read what torch.save wrote, and compare its checksums, which torch does not.

    Args:
        path: the file; one of before torch had checksums is read without.
        what: what it should be.
        hint: what to do if it is not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another kind.
    """
    with reading(path, what, hint):
        if is_zipfile(path):
            with ZipFile(path) as archive:
                if (altered := archive.testzip()) is not None:
                    raise BadZipFile(f"{altered} was altered")
        return torch.load(path, map_location="cpu", weights_only=True)


WRAPPERS = ("state_dict", "model")
"""Keys that training programs put a network's weights under, beside their own notes."""


def load_weights(path: Path, what: str, hint: str) -> dict[str, Tensor]:
    """Read a network's weights, from a safetensors file or from one of torch.save.

    What training programs put around them is taken off: a key of WRAPPERS, and the `module.` that
    DistributedDataParallel puts before every name.

    Args:
        path: the file.
        what: what it should be.
        hint: what to do if it is not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds no weights.
    """
    state: Any
    if path.suffix == ".safetensors":
        with reading(path, what, hint):
            state = load_file(path)
    else:
        state = load_torch(path, what, hint)
    with reading(path, what, hint):
        for key in WRAPPERS:
            state = state.get(key, state)
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("no table of tensors by name")
        if all(name.startswith("module.") for name in state):
            state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        return dict(state)


def list_misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """List in lines why weights are not those of a network; an empty text if they are.

    Args:
        expected: the network's.
        found: of a file. What batch norms count may be missing: it was, once.
    """
    counts = {name for name in expected if name.endswith(".num_batches_tracked")}
    missing = sorted(expected.keys() - found.keys() - counts)
    extra = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name}: expected {tuple(expected[name].shape)}, found {tuple(found[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name].shape != found[name].shape
    ]
    misfits = [*(f"missing {n}" for n in missing), *(f"unknown {n}" for n in extra), *shapes]
    more = [f"and {len(misfits) - 8} more"] if len(misfits) > 8 else []
    return "\n".join(f"  {line}" for line in [*misfits[:8], *more])


def save_checkpoint(
    path: Path, step: int, parts: Mapping[str, Stateful], writes: bool = True
) -> None:
    """Save every part after `step` steps; ranks that do not write still tell their part of it."""
    state = {name: part.state_dict() for name, part in parts.items()}
    if writes:
        save_torch({"step": step, "parts": state}, path)


FORMER_NAMES = {"rng": "chance", "discriminator": "adversary"}
"""Parts of a checkpoint that were once written under another name."""


def load_checkpoint(path: Path, parts: Mapping[str, Stateful]) -> int:
    """Put every part back and return the steps done; 0 if there is no checkpoint.

    Raises:
        ValueError: the file is damaged, or its parts are others; the message says what to do.
    """
    if not path.exists():
        return 0
    what, hint = "a checkpoint of this training", "delete the file to train from the start"
    checkpoint = load_torch(path, what, hint)
    with reading(path, what, hint):
        saved = checkpoint["parts"]
        for name, part in parts.items():
            part.load_state_dict(saved[name if name in saved else FORMER_NAMES.get(name, name)])
        return int(checkpoint["step"])


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, whatever the file around them."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
