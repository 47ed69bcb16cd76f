"""From views to targets: the teacher's forward pass, and its outputs as the store's arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.views import grid_valid
from pipeline.extraction.job import Extraction
from pipeline.ops.attention_map import attention, power
from pipeline.ops.embedding import embed
from pipeline.ops.regions import draw_pixels, region_centers
from pipeline.runtime.precision import precision_scope
from pipeline.runtime.rng import torch_generator
from store.arrays import MAPS, TARGETS
from store.grid import nearest
from store.schema import VOID


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's outputs for n images, float32.

    Attributes:
        logits: [n, K, h, w].
        features: [n, D, h, w], or coordinates [n, r, h, w] in a subspace.
        auxiliary_power: [n, h, w], mean square over classes of `Output.auxiliary_logits`.
    """

    logits: Tensor
    features: Tensor
    auxiliary_power: Tensor

    @cached_property
    def embeddings(self) -> Tensor:
        """Return L2-normalised features [n, D, h, w]."""
        return embed(self.features)

    def cpu(self) -> TeacherOutputs:
        """Copy to the host; waits for the device."""
        return TeacherOutputs(self.logits.cpu(), self.features.cpu(), self.auxiliary_power.cpu())


@torch.no_grad()
def forward_teacher(job: Extraction, images: np.ndarray | Tensor) -> TeacherOutputs:
    """Run the teacher on uint8 images [n, 3, H, W]; the outputs stay on its device.

    Forward batches are of a fixed size, because outputs differ in the last bits between sizes.
    """
    size, outputs = job.settings.forward_batch, []
    for first in range(0, len(images), size):
        batch = torch.as_tensor(images[first : first + size]).to(job.device)
        with precision_scope(job.device, job.settings.precision):
            outputs.append(job.teacher(job.teacher.normalise(batch)))
    # Contiguous, as the store gives them back, so that online and stored take the same code paths.
    logits = torch.cat([output.logits.float() for output in outputs]).contiguous()
    features = torch.cat([output.features.float() for output in outputs]).contiguous()
    return TeacherOutputs(
        logits, features, torch.cat([power(output.auxiliary_logits) for output in outputs])
    )


def compute_targets(
    outputs: TeacherOutputs, labels: Tensor, valid: Tensor, targets: Collection[str] = TARGETS
) -> dict[str, Tensor]:
    """Turn a teacher's outputs into the arrays of a batch, rounded as the store rounds them.

    Args:
        outputs: of n images.
        labels: uint8 [n, h, w] at the feature grid, 255 = void or padding.
        valid: bool [n, h, w], False = padding.
        targets: names of TARGETS; only their arrays are computed.

    Returns:
        By the names of `store.arrays.batch_arrays`: logits and features as they are (encodings
        are the store's), attention and centers float16, pixel counts int32.
    """
    compute: dict[str, Callable[[], dict[str, Tensor]]] = {
        "logits": lambda: {"logits": outputs.logits},
        "features": lambda: {"features": outputs.features},
        "auxiliary_attention": lambda: {
            "auxiliary_attention": attention(outputs.auxiliary_power, valid).view_as(valid).half()
        },
        "regions": lambda: _regions(outputs, labels),
    }
    return {name: array for target in targets for name, array in compute[target]().items()}


def _regions(outputs: TeacherOutputs, labels: Tensor) -> dict[str, Tensor]:
    centers, pixels = region_centers(outputs.embeddings, labels, outputs.logits.shape[1])
    return {"region_center": centers.half(), "region_pixels": pixels}


def encode_unit(
    job: Extraction, unit: int, arrays: dict[str, np.ndarray], outputs: TeacherOutputs
) -> dict[str, np.ndarray]:
    """Join a unit's views with the teacher's outputs, in the schema's names and encodings."""
    spec, outputs = job.spec, outputs.cpu()
    # This may be another thread than the teacher's, and torch counts threads for each.
    torch.set_num_threads(job.settings.threads)
    labels = torch.from_numpy(nearest(arrays["labels"], spec.feature_height, spec.feature_width))
    valid = torch.from_numpy(grid_valid(arrays, spec.stride))
    targets = compute_targets(outputs, labels, valid, spec.targets)
    arrays = arrays | {name: target.numpy() for name, target in targets.items()}
    encodings = {"logits": spec.logits_encoding, "features": spec.features_encoding}
    for name in MAPS:
        if name in targets:
            parts = encodings[name].encode(arrays.pop(name))
            arrays |= {name + suffix: part for suffix, part in parts.items()}
    if "regions" in spec.targets:
        arrays |= _draw_samples(job, unit, outputs.embeddings, labels)
    return arrays


def _draw_samples(
    job: Extraction, unit: int, embeddings: Tensor, labels: Tensor
) -> dict[str, np.ndarray]:
    """Draw pixel samples of every class, packed into the P slots of a record."""
    settings, spec, records = job.settings, job.spec, job.spec.unit_records(unit)
    samples = np.zeros((len(records), spec.sample_slots, spec.feature_channels), np.float16)
    classes = np.full((len(records), spec.sample_slots), VOID, np.uint8)
    for row, record in enumerate(records):
        one = slice(row, row + 1)
        generator = torch_generator(settings.seed, "pixel_sample", record)
        keys = torch.rand(1, labels[row].numel(), generator=generator)
        draw = draw_pixels(
            embeddings[one], labels[one], spec.num_classes, settings.samples_per_class, keys
        )
        found = draw.classes[0] != VOID
        count = int(found.sum())
        samples[row, :count] = draw.embeddings[0][found].numpy()
        classes[row, :count] = draw.classes[0][found].numpy()
    return {"pixel_sample": samples, "pixel_sample_class": classes}
