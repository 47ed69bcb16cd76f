"""The two queues of a run: filled from the store before step 1, moved on by every batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import DistillationConfig
from pipeline.loading.batch import Batch
from pipeline.memory.contrast_memory import BANKS, Kind, check_contrast, class_contrasts
from pipeline.memory.queue import Queue
from pipeline.ops.contrast import Contrast
from pipeline.ops.embedding import embed
from pipeline.ops.regions import draw_pixels
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from pipeline.runtime.rng import seed_sequence, torch_generator
from store.reader import Reader
from store.schema import VOID, StoreSpec

_FILL_ARRAYS = ("region_center", "region_pixels", "pixel_sample", "pixel_sample_class")


class QueueMemory:
    """A `ContrastMemory` of class-aware FIFO queues of teacher pixel and region embeddings.

    Only teacher embeddings enter, so entries never go stale and a precomputed store can fill both
    queues before the first step.

    Args:
        spec: of the store; K classes, D channels, or r coordinates in a subspace.
        settings: queue sizes, contrast sizes, V.
        seed: of the run.
        device: where the queues live.
        ranks: among which a batch is sharded; their queues stay equal, for each pushes, and
            masks, what all of them together have.

    Raises:
        ValueError: more is to be drawn of a class than its queue holds.
    """

    def __init__(
        self,
        spec: StoreSpec,
        settings: DistillationConfig,
        seed: int,
        device: torch.device,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self._num_classes, self._settings, self._seed = spec.num_classes, settings, seed
        self._ranks, self._per_class = ranks, class_contrasts(settings, spec.num_classes)
        sizes: dict[Kind, int] = {"pixel": settings.pixel_queue, "region": settings.region_queue}
        for kind, per_class in self._per_class.items():
            check_contrast(kind, per_class, sizes[kind])
        dtype: torch.dtype = getattr(torch, settings.queue_storage)
        self._queues = {
            kind: Queue(spec.num_classes, size, spec.feature_channels, device, dtype)
            for kind, size in sizes.items()
        }
        self._generator = torch_generator(seed, "memory", device=device)

    def fill(self, reader: Reader, *, resumed: bool = False, banks: Path = BANKS) -> None:
        """Push every stored center and pixel sample, units in an order drawn from the seed.

        Raises:
            ValueError: negative embeddings, and queues of uint8.
        """
        if resumed:
            return
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
            self._push("pixel", arrays["pixel_sample"], arrays["pixel_sample_class"], numbers)

    def sample(self, kind: Kind, batch: Batch) -> Contrast:
        """Sample a queue, class-balanced; slots of the batch's own records are not usable."""
        records = self._ranks.gather(batch.record)
        return self._queues[kind].sample(self._per_class[kind], self._generator, records)

    def push(self, batch: Batch) -> None:
        """Enqueue the batch's centers and V fresh draws per class and image."""
        assert batch.targets is not None, "memory needs a teacher's targets"
        targets, gather = batch.targets, self._ranks.gather
        records = gather(batch.record)
        self._push_regions(gather(targets.region_center), gather(targets.region_pixels), records)
        draw = draw_pixels(
            embed(targets.features),
            batch.grid_labels,
            self._num_classes,
            self._settings.pixels_per_class,
            self._draw_keys(batch.grid_labels),
        )
        self._push("pixel", gather(draw.embeddings), gather(draw.classes), records)

    def state_dict(self) -> dict[str, Any]:
        """Return both queues and the generator they draw from, under the names of checkpoints."""
        queues = {f"{kind}s": queue.state_dict() for kind, queue in self._queues.items()}
        return {**queues, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for kind, queue in self._queues.items():
            queue.load_state_dict(state[f"{kind}s"])
        self._generator.set_state(state["generator"].cpu())

    def _draw_keys(self, labels: Tensor) -> Tensor:
        """Draw a random number for every pixel of all ranks' images; return this rank's [B, A]."""
        generator, shape = self._generator, (self._ranks.size * len(labels), labels[0].numel())
        keys = torch.rand(shape, generator=generator, device=generator.device)
        shard: Tensor = self._ranks.shard(keys)
        return shard

    def _push_regions(self, centers: Tensor, pixels: Tensor, records: Tensor) -> None:
        classes = torch.arange(self._num_classes, device=centers.device)
        self._push("region", centers, torch.where(pixels > 0, classes, VOID), records)

    def _push(self, kind: Kind, embeddings: Tensor, classes: Tensor, records: Tensor) -> None:
        """Push [B, M, D] embeddings with their classes [B, M] and record numbers [B]."""
        numbers = records.unsqueeze(1).expand(classes.shape)
        queue = self._queues[kind]
        queue.push(embeddings.flatten(0, 1), classes.flatten().long(), numbers.flatten())


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
