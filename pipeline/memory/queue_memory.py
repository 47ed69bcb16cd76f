"""The two queues of a run: filled from the store before step 1, moved on by every batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import DistillationConfig
from pipeline.loading.batch import Batch
from pipeline.memory.queue import Queue
from pipeline.ops.contrast import Contrast
from pipeline.ops.embedding import embed
from pipeline.ops.regions import draw_pixels
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from pipeline.runtime.rng import seed_sequence, torch_generator
from store.reader import Reader
from store.schema import VOID, StoreSpec


class Memory:
    """Class-aware FIFO queues of teacher pixel and region embeddings.

    Only teacher embeddings enter, so entries never go stale and a precomputed store can fill both
    queues before the first step. A step samples first and pushes after, so that no anchor meets
    itself.

    Args:
        spec: of the store; K classes, D channels.
        settings: queue sizes, contrast sizes, V.
        seed: of the run.
        device: where the queues live.
        ranks: among which a batch is sharded; their queues stay equal, for each pushes, and
            masks, what all of them together have.
    """

    def __init__(
        self,
        spec: StoreSpec,
        settings: DistillationConfig,
        seed: int,
        device: torch.device,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        num_classes, channels = spec.num_classes, spec.feature_channels
        for kind in ("pixel", "region"):
            per_class = contrast_per_class(getattr(settings, f"{kind}_contrast"), num_classes)
            check_contrast(kind, per_class, getattr(settings, f"{kind}_queue"))
        self._num_classes, self._settings, self._seed = num_classes, settings, seed
        self._ranks = ranks
        dtype = getattr(torch, settings.queue_storage)
        self._pixels = Queue(num_classes, settings.pixel_queue, channels, device, dtype)
        self._regions = Queue(num_classes, settings.region_queue, channels, device, dtype)
        self._generator = torch_generator(seed, "memory", device=device)

    def fill(self, reader: Reader) -> None:
        """Push every stored center and pixel sample, units in an order drawn from the seed."""
        spec = reader.spec
        rng = np.random.default_rng(seed_sequence(self._seed, "fill"))
        for unit in rng.permutation(spec.num_units):
            records = np.array(spec.unit_records(int(unit)))
            stored = reader.read(records, _FILL_ARRAYS)
            if self._settings.queue_storage == "uint8":
                _refuse_signed(stored, reader.path)
            arrays = {name: torch.from_numpy(array) for name, array in stored.items()}
            numbers = torch.from_numpy(records)
            self._push_regions(arrays["region_center"], arrays["region_pixels"], numbers)
            self._push(self._pixels, arrays["pixel_sample"], arrays["pixel_sample_class"], numbers)

    def pixel_contrast(self, batch: Batch) -> Contrast:
        """Sample the pixel queue, class-balanced; the batch's own records are not usable."""
        return self._sample(self._pixels, self._settings.pixel_contrast, batch)

    def region_contrast(self, batch: Batch) -> Contrast:
        """Sample the region queue, class-balanced; the batch's own records are not usable."""
        return self._sample(self._regions, self._settings.region_contrast, batch)

    def push(self, batch: Batch) -> None:
        """Enqueue the batch's centers and V fresh draws per class and image."""
        assert batch.targets is not None, "memory needs a teacher's targets"
        targets, gather = batch.targets, self._ranks.gather
        records = gather(batch.record)
        self._push_regions(gather(targets.region_center), gather(targets.region_pixels), records)
        labels = batch.grid_labels
        draw = draw_pixels(
            embed(targets.features),
            labels,
            self._num_classes,
            self._settings.pixels_per_class,
            self._draw_keys(len(labels), labels[0].numel()),
        )
        self._push(self._pixels, gather(draw.embeddings), gather(draw.classes), records)

    def state_dict(self) -> dict[str, object]:
        """Both queues and the generator they draw from."""
        return {
            "pixels": self._pixels.state_dict(),
            "regions": self._regions.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a saved state."""
        self._pixels.load_state_dict(state["pixels"])  # type: ignore[arg-type]
        self._regions.load_state_dict(state["regions"])  # type: ignore[arg-type]
        self._generator.set_state(state["generator"].cpu())  # type: ignore[attr-defined]

    def _sample(self, queue: Queue, wanted: int, batch: Batch) -> Contrast:
        per_class = contrast_per_class(wanted, self._num_classes)
        return queue.sample(per_class, self._generator, self._ranks.gather(batch.record))

    def _draw_keys(self, num_images: int, area: int) -> Tensor:
        """Draw a random number for every pixel of every rank's images, and return this rank's."""
        generator, shape = self._generator, (self._ranks.size * num_images, area)
        whole = torch.rand(shape, generator=generator, device=generator.device)
        keys: Tensor = self._ranks.shard(whole)
        return keys

    def _push_regions(self, centers: Tensor, pixels: Tensor, records: Tensor) -> None:
        classes = torch.arange(self._num_classes, device=centers.device)
        present = torch.where(pixels > 0, classes, VOID)
        self._push(self._regions, centers, present, records)

    @staticmethod
    def _push(queue: Queue, embeddings: Tensor, classes: Tensor, records: Tensor) -> None:
        """Push [B, M, D] embeddings with their classes [B, M] and record numbers [B]."""
        numbers = records.unsqueeze(1).expand(classes.shape)
        queue.push(embeddings.flatten(0, 1), classes.flatten().long(), numbers.flatten())


def contrast_per_class(wanted: int, num_classes: int) -> int:
    """Embeddings of each class, K times which is the paper's K * (wanted // K + 1)."""
    # 4096 becomes 4104 for 19 classes.
    return wanted // num_classes + 1


def check_contrast(kind: str, per_class: int, capacity: int) -> None:
    """Refuse at the start what the first step could not draw.

    Raises:
        ValueError: more per class than the queue holds.
    """
    if per_class > capacity:
        raise ValueError(
            f"distillation.{kind}_contrast draws {per_class} per class, but {kind}_queue holds "
            f"{capacity}; lower the one or raise the other"
        )


def _refuse_signed(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Refuse negative embeddings for a uint8 queue while they are on the host.

    Every later push is of the same teacher, and its features are after a ReLU or they are not.
    """
    for name in ("region_center", "pixel_sample"):
        lowest = arrays[name].min()
        if lowest < 0:
            raise ValueError(
                f"distillation.queue_storage: uint8 holds embeddings >= 0, but {name} of {where} "
                f"has {lowest:g}; choose bfloat16 or float32"
            )


_FILL_ARRAYS = ("region_center", "region_pixels", "pixel_sample", "pixel_sample_class")
