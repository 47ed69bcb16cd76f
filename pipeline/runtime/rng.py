"""Randomness as an explicit argument: generators named by a seed, words and numbers."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_sequence(seed: int, *path: str | int) -> np.random.SeedSequence:
    """Name an independent random stream; different paths never share a draw."""
    return np.random.SeedSequence(seed, spawn_key=tuple(_as_int(part) for part in path))


def _as_int(part: str | int) -> int:
    if isinstance(part, int):
        return part
    return int.from_bytes(hashlib.sha256(part.encode()).digest()[:4], "big")


def torch_generator(
    seed: int, *path: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Build a torch generator of the named stream."""
    state = int(seed_sequence(seed, *path).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device=device).manual_seed(state)


def seed_torch(seed: int, *path: str | int) -> None:
    """Seed torch's global state, which weight initialisation and dropout draw from."""
    torch.manual_seed(torch_generator(seed, *path).initial_seed())
