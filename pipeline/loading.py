"""One way to read ahead in other processes, for the store's stream and for the teacher's crops."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from pipeline.randomness import torch_generator
from store.errors import StoreError


class LoaderError(ValueError):
    """A process that reads ahead died."""


def open_loader(
    dataset: Dataset[Any], batches: Iterable[Any], seed: int, num_workers: int, pin_memory: bool
) -> Iterator[Any]:
    """Load one item of `dataset` per element of `batches`, in order, whole batches at a time.

    Args:
        dataset: maps an element of `batches` to a batch.
        batches: what to load.
        seed: of the loader's own generator; a loader otherwise draws from torch's global one, and a
            resumed run would differ.
        num_workers: processes that read ahead; 0 reads in this one.
        pin_memory: for copies to a GPU that overlap with computing.

    Raises:
        LoaderError: a process that reads ahead died.
        Exception: what the dataset raised, as it raised it.
    """
    loader = DataLoader(
        _Carrying(dataset),
        sampler=batches,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch_generator(seed, "loader"),
        worker_init_fn=_leave_signals_to_the_stage,
    )
    try:
        for item in loader:
            if isinstance(item, Exception):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # torch has no class of its own for it
            raise
        raise LoaderError(
            f"{error}; a process that reads ahead was killed, often for want of memory: try "
            "--workers 1, or 0 to read in this process"
        ) from error


class _Carrying(Dataset[Any]):
    """Hands errors over as values: torch would turn them into a traceback's text on the way."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, item: Any) -> Any:
        try:
            return self._dataset[item]
        except (ValueError, OSError, LookupError, StoreError) as error:
            return error


def _leave_signals_to_the_stage(worker: int) -> None:
    """A terminal's Ctrl-C reaches every process of the group; the stage alone answers it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
