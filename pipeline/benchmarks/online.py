"""Batches with the teacher in the loop: what the store saves us, kept to compare with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.datasets.views import grid_valid
from pipeline.extraction.job import Extraction
from pipeline.extraction.records import draw_records
from pipeline.extraction.targets import compute_targets, forward_teacher
from pipeline.loading.batch import Batch, Targets
from pipeline.loading.workers import open_loader
from store.grid import nearest
from store.order import epoch_order


def online_batch(job: Extraction, records: Sequence[int]) -> Batch:
    """Build the batch of some records with targets from the teacher instead of the store.

    Args:
        job: of the store whose records are meant; it fixes the views and holds the teacher.
        records: numbers of the records.
    """
    views = _Views(job)[np.asarray(records)]
    return query_teacher(job, _batch(views, job.device))


def query_teacher(job: Extraction, batch: Batch) -> Batch:
    """Return the batch with targets that the job's teacher gives now."""
    outputs = forward_teacher(job, batch.image)
    targets = compute_targets(outputs, batch.grid_labels, batch.grid_valid)
    return replace(batch, targets=Targets.widened(targets))


def fresh_records(
    num_images: int, unit_size: int, seed: int, batch_size: int, steps: range
) -> Iterator[np.ndarray]:
    """Draw numbers of records that no step before has seen, int64 [B] a step.

    The images come in the order of a store of one view with this unit and seed; the view's number
    is the epoch, so epoch e takes records e * num_images onwards of a store without end.

    Raises:
        ValueError: fewer images than a batch needs.
    """
    per_epoch = num_images // batch_size
    if per_epoch == 0:
        raise ValueError(
            f"training.batch_size is {batch_size}, but there are {num_images} training images; "
            "lower the batch size"
        )
    for step in steps:
        epoch, position = divmod(step, per_epoch)
        order = epoch_order(num_images, unit_size, seed, epoch)
        yield epoch * num_images + order[position * batch_size : (position + 1) * batch_size]


def fresh_batches(
    job: Extraction, *, seed: int, batch_size: int, steps: range, num_workers: int = 0
) -> Iterator[Batch]:
    """Stream batches of fresh random views, without targets: `query_teacher` adds the teacher's.

    Args:
        job: index and settings of the views.
        seed: names the order.
        batch_size: B; the last incomplete batch of an epoch is dropped.
        steps: which steps.
        num_workers: processes that draw ahead; never changes a batch.
    """
    spec = job.spec
    records = fresh_records(spec.num_images, spec.unit_size, seed, batch_size, steps)
    views, pin = _Views(job), job.device.type == "cuda"
    for raw in open_loader(views, records, seed, num_workers, pin):
        yield _batch(raw, job.device)


class _Views(Dataset[dict[str, Tensor]]):
    """A batch of records per item, cut out of the images; holds no teacher, so workers may."""

    def __init__(self, job: Extraction) -> None:
        self._index, self._settings = job.index, job.settings
        self._grid = job.spec.feature_height, job.spec.feature_width
        self._stride = job.spec.stride

    def __getitem__(self, records: np.ndarray) -> dict[str, Tensor]:
        arrays = draw_records(self._index, self._settings, records.tolist())
        raw = {
            "record": records,
            "image": arrays["image"],
            "labels": arrays["labels"],
            "grid_labels": nearest(arrays["labels"], *self._grid),
            "grid_valid": grid_valid(arrays, self._stride),
        }
        return {name: torch.from_numpy(array) for name, array in raw.items()}


def _batch(raw: dict[str, Tensor], device: torch.device) -> Batch:
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in raw.items()}
    return Batch(**moved, targets=None)
