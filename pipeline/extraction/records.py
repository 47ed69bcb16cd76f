"""Images, labels and views of a store's records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.config.params import StoreConfig
from pipeline.datasets.index import Index, read_image, read_labels
from pipeline.datasets.views import TABLE, draw_view


def draw_records(
    index: Index, settings: StoreConfig, records: Sequence[int]
) -> dict[str, np.ndarray]:
    """Draw images, labels and views of some records: record n = view * num_images + image."""
    samples = index.extracted
    rows: dict[str, list[Any]] = {}
    for record in records:
        view_index, position = divmod(record, len(samples))
        sample = samples[position]
        size = sample.height, sample.width
        view = draw_view(settings.crop, settings.seed, sample.key, view_index, *size)
        row = {
            "image": view.image(read_image(index, sample)),
            "labels": view.labels(read_labels(index, sample)),
            "key": sample.key,
            "view_index": view_index,
            **{column: asdict(view)[column] for column in TABLE},
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in rows.items()}
