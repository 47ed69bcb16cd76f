"""CIRKDV2's queue of teacher channels: filled from the store before step 1, moved on by batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import DistillationConfig
from pipeline.datasets.views import TABLE, grid_valid
from pipeline.loading.batch import Batch
from pipeline.memory.contrast_memory import BANKS, Kind, check_contrast
from pipeline.memory.queue import Queue
from pipeline.ops.contrast import Contrast
from pipeline.ops.embedding import channel_embeddings
from pipeline.ops.pooling import CHANNEL_POOL, mean_pool
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from pipeline.runtime.rng import seed_sequence, torch_generator
from store.reader import Reader
from store.schema import StoreSpec


class ChannelMemory:
    """A `ContrastMemory` of one FIFO queue of channel embeddings.

    A channel embedding is one channel's pooled map of one image, L2-normalised.

    Always float32, whatever `queue_storage`: it is small (10 000 entries of a 512x1024 crop are
    20 MB), and channels may be signed.

    Args:
        spec: of the store; its feature grid, pooled, gives the length of an entry.
        settings: channel_queue, channel_contrast, channels_per_step.
        seed: of the run.
        device: where the queue lives.
        ranks: among which a batch is sharded; their queues stay equal.
    """

    def __init__(
        self,
        spec: StoreSpec,
        settings: DistillationConfig,
        seed: int,
        device: torch.device,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        check_contrast("channel", settings.channel_contrast, settings.channel_queue)
        self._settings, self._seed, self._ranks = settings, seed, ranks
        cells = -(-spec.feature_height // CHANNEL_POOL) * -(-spec.feature_width // CHANNEL_POOL)
        self._queue = Queue(1, settings.channel_queue, cells, device=device)
        self._generator = torch_generator(seed, "channels", device=device)

    def fill(self, reader: Reader, *, resumed: bool = False, banks: Path = BANKS) -> None:
        """Push every channel of as many records, drawn from the seed, as the queue holds."""
        if resumed:
            return
        spec = reader.spec
        wanted = -(-self._settings.channel_queue // spec.feature_channels)
        rng = np.random.default_rng(seed_sequence(self._seed, "fill channels"))
        for record in rng.permutation(len(reader))[:wanted]:
            names = [*reader.map_arrays("features").values(), *TABLE]
            arrays = reader.read([int(record)], names)
            features = torch.from_numpy(reader.decode("features", arrays))
            valid = torch.from_numpy(grid_valid(arrays))
            self._push(_embed_channels(features, valid), torch.tensor([record]))

    def sample(self, kind: Kind, batch: Batch) -> Contrast:
        """Sample the queue; channels of the batch's own records are not usable."""
        assert kind == "channel", f"a memory of channels holds no {kind} embeddings"
        records = self._ranks.gather(batch.record)
        return self._queue.sample(self._settings.channel_contrast, self._generator, records)

    def push(self, batch: Batch) -> None:
        """Enqueue some of the batch's channels, drawn at random."""
        assert batch.targets is not None, "memory needs a teacher's targets"
        wanted, gather = self._settings.channels_per_step, self._ranks.gather
        embeddings = _embed_channels(batch.targets.features, batch.grid_valid)
        self._push(gather(embeddings), gather(batch.record), wanted)

    def _push(self, embeddings: Tensor, records: Tensor, wanted: int | None = None) -> None:
        numbers = records.unsqueeze(1).expand(embeddings.shape[:2]).flatten()
        flat = embeddings.flatten(0, 1)
        if wanted is not None:
            device = self._generator.device
            drawn = torch.randperm(len(flat), generator=self._generator, device=device)[:wanted]
            flat, numbers = flat[drawn], numbers[drawn]
        self._queue.push(flat, torch.zeros_like(numbers), numbers)

    def state_dict(self) -> dict[str, Any]:
        """Return the queue and the generator it draws from."""
        return {"queue": self._queue.state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._queue.load_state_dict(state["queue"])
        self._generator.set_state(state["generator"].cpu())


def _embed_channels(features: Tensor, valid: Tensor) -> Tensor:
    """Pool every channel's map and turn it into a unit vector, [B, D, cells]."""
    return channel_embeddings(*mean_pool(features, valid, CHANNEL_POOL))
