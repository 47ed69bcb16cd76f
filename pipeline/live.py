"""Batches from a live teacher: what the store saves us, kept to compare with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.extraction import Extraction, draw_records, forward_teacher
from pipeline.losses.at import attention
from pipeline.losses.embedding import embed
from pipeline.regions import region_centers
from pipeline.stream import Batch, Targets, grid_inside
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
    said = forward_teacher(job, arrays["image"])
    labels = torch.from_numpy(grid_labels).to(device)
    centers, pixels = region_centers(embed(said.features), labels, spec.num_classes)
    inside = torch.from_numpy(grid_inside(arrays)).to(device)
    attended = attention(said.auxiliary_power, inside).view(inside.shape)
    targets = {
        "logits": said.logits,
        "features": said.features,
        # The store's own rounding, so that both ways teach, and fill the queues, with the same.
        "auxiliary_attention": attended.half().float(),
        "region_center": centers.half().float(),
        "region_pixels": pixels,
    }
    return Batch(
        record=torch.tensor(records, device=device),
        image=torch.from_numpy(arrays["image"]).to(device),
        labels=torch.from_numpy(arrays["labels"]).to(device),
        grid_labels=labels,
        grid_inside=inside,
        targets=Targets(targets),
    )
