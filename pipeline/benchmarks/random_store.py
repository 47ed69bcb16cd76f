"""A store of random views and a random teacher's targets; queues filled to the last slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pipeline.config.params import StudentConfig
from pipeline.datasets.views import View
from pipeline.distillation.objective import Objective
from pipeline.extraction.job import Extraction
from pipeline.extraction.targets import encode_unit, forward_teacher
from pipeline.loading.batch import Batch, Targets
from pipeline.memory.queue_memory import QueueMemory
from pipeline.ops.embedding import embed
from pipeline.runtime.rng import seed_sequence, torch_generator
from store.reader import Reader
from store.schema import StoreSpec
from store.writer import Writer

IMAGES_AT_ONCE = 50  # of random embeddings


def write_random_store(job: Extraction, path: Path) -> None:
    """Write random images and labels, and the targets of the job's teacher."""
    with Writer.open(path, job.spec) as writer:
        for unit in writer.missing_units():
            arrays = _random_views(job.spec, unit)
            outputs = forward_teacher(job, arrays["image"])
            writer.write(unit, encode_unit(job, unit, arrays, outputs))
        writer.finish()


def _random_views(spec: StoreSpec, unit: int) -> dict[str, np.ndarray]:
    """Draw views without padding or void, with every class in each."""
    rng = np.random.default_rng(seed_sequence(0, "random views", unit))
    records, size = spec.unit_records(unit), (spec.height, spec.width)
    view = View(
        *size, scale=1.0, flip=False, top=0, left=0, crop_height=size[0], crop_width=size[1]
    )
    shape = (len(records), *size)
    return {
        "image": rng.integers(0, 256, (len(records), 3, *size), np.uint8),
        "labels": rng.integers(0, spec.num_classes, shape, np.uint8),
        "key": np.array([f"random/{record}" for record in records]),
        "view_index": np.zeros(len(records), np.int32),
        **{name: np.full(len(records), value) for name, value in asdict(view).items()},
    }


def fill_queues(
    config: StudentConfig, device: torch.device, objective: Objective, reader: Reader
) -> None:
    """Fill every slot of a run's queues: with random embeddings, then with the store's."""
    memory = objective.parts.get("memory")
    if isinstance(memory, QueueMemory):
        for batch in _random_batches(config, reader.spec, device):
            memory.push(batch)
    objective.fill(reader)


def _random_batches(
    config: StudentConfig, spec: StoreSpec, device: torch.device
) -> Iterator[Batch]:
    """Draw batches of V pixels of every class in every image, and of nothing that is not pushed."""
    per_class, num_classes = config.distillation.pixels_per_class, spec.num_classes
    num_images = max(
        config.distillation.region_queue, -(-config.distillation.pixel_queue // per_class)
    )
    generator = torch_generator(config.seed, "random embeddings", device=device)
    classes = torch.arange(num_classes, dtype=torch.uint8, device=device)
    for first in range(0, num_images, IMAGES_AT_ONCE):
        shape = (IMAGES_AT_ONCE, spec.feature_channels, 1, num_classes * per_class)
        features = torch.randn(shape, generator=generator, device=device)
        labels = classes.repeat_interleave(per_class).expand(IMAGES_AT_ONCE, 1, -1)
        centers = embed(features)[:, :, 0, ::per_class].mT
        targets = {
            "features": features,
            "region_center": centers,
            "region_pixels": torch.ones(centers.shape[:2], dtype=torch.int32, device=device),
        }
        numbers = spec.num_records + first + torch.arange(IMAGES_AT_ONCE, device=device)
        nothing = features[:0]
        valid = torch.ones(labels.shape, dtype=torch.bool, device=device)
        yield Batch(numbers, nothing, nothing, labels, valid, Targets(targets))
