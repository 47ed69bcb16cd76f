"""One way to read ahead in other processes, for the store's stream and for the teacher's crops."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader, Dataset

from pipeline.randomness import torch_generator


def open_loader(
    dataset: Dataset[Any], batches: Iterable[Any], seed: int, num_workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Load one item of `dataset` per element of `batches`, in order, whole batches at a time.

    Args:
        dataset: maps an element of `batches` to a batch.
        batches: what to load.
        seed: of the loader's own generator; a loader otherwise draws from torch's global one, and a
            resumed run would differ.
        num_workers: processes that read ahead; 0 reads in this one.
        pin_memory: for copies to a GPU that overlap with computing.
    """
    return DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch_generator(seed, "loader"),
        worker_init_fn=_leave_signals_to_the_stage,
    )


def _leave_signals_to_the_stage(worker: int) -> None:
    """A terminal's Ctrl-C reaches every process of the group; the stage alone answers it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
