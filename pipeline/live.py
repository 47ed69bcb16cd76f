"""Batches from a live teacher: what the store saves us, kept to compare with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.extraction import Extraction, draw_records, forward_teacher
from pipeline.losses.embedding import embed
from pipeline.regions import region_centers
from pipeline.stream import Batch, Targets, views_of
from store.grid import nearest


def live_batch(job: Extraction, records: Sequence[int]) -> Batch:
    """The batch of some records with targets from a teacher forward instead of the store.

    Args:
        job: of the store whose records are meant; it fixes the views and holds the teacher.
        records: numbers of the records.
    """
    device, spec = job.device, job.spec
    arrays = draw_records(job.index, job.settings, records)
    grid_labels = nearest(arrays["labels"], spec.feature_height, spec.feature_width)
    logits, features = forward_teacher(job, arrays["image"])
    labels = torch.from_numpy(grid_labels).to(device)
    centers, pixels = region_centers(embed(features), labels, spec.num_classes)
    inside = torch.stack([torch.from_numpy(view.grid_inside()) for view in views_of(arrays)])
    return Batch(
        record=torch.tensor(records, device=device),
        image=torch.from_numpy(arrays["image"]).to(device),
        labels=torch.from_numpy(arrays["labels"]).to(device),
        grid_labels=labels,
        grid_inside=inside.to(device),
        # The store's own rounding of centers, so that both ways fill the queues with the same.
        targets=Targets(logits, features, centers.half().float(), pixels),
    )
