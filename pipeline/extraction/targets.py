"""From views to targets: the teacher's forward pass, and its outputs as the store's arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.views import grid_valid
from pipeline.extraction.job import Extraction
from pipeline.models.network import normalise
from pipeline.ops.attention_map import attention, power
from pipeline.ops.embedding import embed
from pipeline.ops.regions import draw_pixels, region_centers
from pipeline.runtime.precision import precision_scope
from pipeline.runtime.rng import torch_generator
from store.grid import nearest
from store.schema import VOID


def encode_unit(
    job: Extraction, unit: int, arrays: dict[str, np.ndarray], outputs: TeacherOutputs
) -> dict[str, np.ndarray]:
    """Join a unit's views with the teacher's outputs, in the schema's names and encodings."""
    spec, outputs = job.spec, outputs.cpu()
    # This may be another thread than the teacher's, and torch counts threads for each.
    torch.set_num_threads(job.settings.threads)
    labels = torch.from_numpy(nearest(arrays["labels"], spec.feature_height, spec.feature_width))
    valid = torch.from_numpy(grid_valid(arrays, job.spec.stride))
    build: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "logits": lambda: _encoded("logits", spec.logits_encoding, outputs.logits),
        "features": lambda: _encoded("features", spec.features_encoding, outputs.features),
        "auxiliary_attention": lambda: _attended(outputs.auxiliary_power, valid),
        "regions": lambda: _by_class(job, unit, outputs.features, labels),
    }
    for target in spec.targets:
        arrays = arrays | build[target]()
    return arrays


class TeacherOutputs(NamedTuple):
    """The teacher's outputs for n images, float32.

    Attributes:
        logits: [n, K, h, w].
        features: [n, D, h, w].
        auxiliary_power: [n, h, w], mean square over classes of the auxiliary head's logits.
    """

    logits: Tensor
    features: Tensor
    auxiliary_power: Tensor

    def cpu(self) -> TeacherOutputs:
        """The same on the host; waits for the device."""
        return TeacherOutputs(*(target.cpu() for target in self))


@torch.no_grad()
def forward_teacher(job: Extraction, images: np.ndarray | Tensor) -> TeacherOutputs:
    """Run the teacher on uint8 images [n, 3, H, W]; the targets stay on its device.

    Forward batches are of a fixed size, because outputs differ in the last bits between sizes.
    """
    size, outputs = job.settings.forward_batch, []
    for first in range(0, len(images), size):
        batch = torch.as_tensor(images[first : first + size]).to(job.device)
        with precision_scope(job.device, job.settings.precision):
            outputs.append(job.teacher(normalise(batch)))
    # Contiguous, as the store gives them back, so that online and stored take the same code paths.
    logits = torch.cat([output.logits.float() for output in outputs]).contiguous()
    features = torch.cat([output.features.float() for output in outputs]).contiguous()
    return TeacherOutputs(
        logits, features, torch.cat([power(output.auxiliary) for output in outputs])
    )


def _encoded(name: str, encoding: Any, values: Tensor) -> dict[str, np.ndarray]:
    array = values.numpy()
    return {name + suffix: part for suffix, part in encoding.encode(array).items()}


def _attended(auxiliary_power: Tensor, valid: Tensor) -> dict[str, np.ndarray]:
    attended = attention(auxiliary_power, valid).view(valid.shape)
    return {"auxiliary_attention": attended.numpy().astype(np.float16)}


def _by_class(
    job: Extraction, unit: int, features: Tensor, labels: Tensor
) -> dict[str, np.ndarray]:
    """Region centers, and pixel samples packed into the P slots of a record."""
    settings, spec, records = job.settings, job.spec, job.spec.unit_records(unit)
    embeddings = embed(features)
    centers, pixels = region_centers(embeddings, labels, spec.num_classes)
    samples = np.zeros((len(records), spec.sample_slots, spec.feature_channels), np.float16)
    classes = np.full((len(records), spec.sample_slots), VOID, np.uint8)
    for row, record in enumerate(records):
        generator = torch_generator(settings.seed, "pixel_sample", record)
        one = slice(row, row + 1)
        draw = draw_pixels(
            embeddings[one], labels[one], spec.num_classes, settings.samples_per_class, generator
        )
        found = draw.classes[0] != VOID
        count = int(found.sum())
        samples[row, :count] = draw.embeddings[0][found].numpy()
        classes[row, :count] = draw.classes[0][found].numpy()
    return {
        "region_center": centers.numpy().astype(np.float16),
        "region_pixels": pixels.numpy(),
        "pixel_sample": samples,
        "pixel_sample_class": classes,
    }
