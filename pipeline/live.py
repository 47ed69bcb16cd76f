"""Batches from a live teacher: what the store saves us, kept to compare with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline import params
from pipeline.datasets.index import Index
from pipeline.extraction import draw_records, forward_teacher
from pipeline.losses.embedding import embed
from pipeline.network import STRIDE
from pipeline.regions import region_centers
from pipeline.stream import Batch, Targets, views_of
from store.grid import nearest


def live_batch(
    index: Index,
    teacher: nn.Module,
    settings: params.Store,
    records: Sequence[int],
    device: torch.device,
) -> Batch:
    """The batch of some records with targets from a teacher forward instead of the store.

    Args:
        index: of the dataset.
        teacher: in eval mode, on `device`.
        settings: of the store whose records are meant; they fix the views.
        records: numbers of the records.
        device: of the teacher and of the batch.
    """
    arrays = draw_records(index, settings, records)
    height, width = settings.crop.height // STRIDE, settings.crop.width // STRIDE
    grid_labels = torch.from_numpy(nearest(arrays["labels"], height, width)).to(device)
    logits, features = forward_teacher(teacher, arrays["image"], settings, device)
    centers, pixels = region_centers(embed(features), grid_labels, len(index.class_names))
    inside = torch.stack([torch.from_numpy(view.grid_inside()) for view in views_of(arrays)])
    return Batch(
        record=torch.tensor(records, device=device),
        image=torch.from_numpy(arrays["image"]).to(device),
        labels=torch.from_numpy(arrays["labels"]).to(device),
        grid_labels=grid_labels,
        grid_inside=inside.to(device),
        # The store's own rounding of centers, so that both ways fill the queues with the same.
        targets=Targets(logits, features, centers.half().float(), pixels),
    )
