"""One way to read ahead: in other processes, in stated memory, and onto the device in time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.runtime.rng import torch_generator
from store.errors import StoreError


class LoaderError(ValueError):
    """A process that reads ahead died."""


PREFETCH_FACTOR = 2
"""Batches that a worker is asked for ahead of the step, where memory allows (torch's default)."""


def open_loader(
    dataset: Dataset[Any],
    batches: Iterable[Any],
    seed: int,
    num_workers: int,
    pin_memory: bool,
    prefetch_factor: int = PREFETCH_FACTOR,
) -> Iterator[Any]:
    """Load one item of `dataset` per element of `batches`, in order, whole batches at a time.

    Args:
        dataset: maps an element of `batches` to a batch.
        batches: what to load.
        seed: of the loader's own generator; a loader otherwise draws from torch's global one, and a
            resumed run would differ.
        num_workers: processes that read ahead; 0 reads in this one.
        pin_memory: for copies to a GPU that overlap with computing.
        prefetch_factor: batches that each process is asked for ahead.

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
        prefetch_factor=prefetch_factor if num_workers else None,
        generator=torch_generator(seed, "loader"),
        worker_init_fn=_leave_the_stage_its_signals,
    )
    with name_dead_workers():
        for item in loader:
            if isinstance(item, Exception):
                raise item
            yield item


@contextmanager
def name_dead_workers() -> Iterator[None]:
    """Turn torch's report of a dead process, which may come amid any line, into a LoaderError."""
    try:
        yield
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


def move_ahead(
    batches: Iterable[Mapping[str, Tensor]], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Move batches to the device; to a GPU while the step before still runs there.

    The host comes back for the next batch as soon as it has queued a step. Then the copy goes, from
    pinned memory, through a stream of its own, beside that step. The loop that takes the steps
    (`pipeline.training.steps`) keeps the host from running further ahead, so that never more than
    two batches, the one in use and the next, lie on the device.
    """
    if device.type != "cuda":
        yield from ({name: x.to(device) for name, x in batch.items()} for batch in batches)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    computing = torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copying):
            moved = {name: x.to(device, non_blocking=True) for name, x in batch.items()}
        computing.wait_stream(copying)
        for x in moved.values():
            x.record_stream(computing)
        yield moved


def _leave_the_stage_its_signals(worker: int) -> None:
    """Take a session of one's own: Ctrl-C, or a signal to the group, reaches the stage alone."""
    os.setsid()
