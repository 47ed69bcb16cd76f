"""The whole store as memory: every center and pixel sample of it can be drawn at any step."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import DistillationConfig
from pipeline.loading.batch import Batch
from pipeline.memory.queue_memory import contrast_per_class
from pipeline.ops.contrast import Contrast
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from pipeline.runtime.rng import seed_sequence
from store.bank import open_bank
from store.reader import Reader
from store.schema import NO_RECORD, StoreSpec

BANKS = Path("artifacts/banks")
"""Where banks are built, and found by every run over the same store."""


class _Opened(NamedTuple):
    """A mapped bank, and at which row each class begins (int64 [K + 1], the last is its end)."""

    rows: np.ndarray
    first: np.ndarray


class Bank:
    """A memory that holds all there is and never moves: `queue_memory.Memory` without queues.

    Draws are class-balanced, uniform and without replacement over a class's embeddings, on the
    host; only what was drawn goes to the device.

    Args:
        spec: of the store; K classes, D channels.
        settings: contrast sizes; queue sizes and `queue_storage` have no meaning here.
        seed: of the run.
        device: where contrasts are wanted.
        ranks: among which a batch is sharded; all draw the same.
    """

    def __init__(
        self,
        spec: StoreSpec,
        settings: DistillationConfig,
        seed: int,
        device: torch.device,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self._num_classes, self._settings, self._device = spec.num_classes, settings, device
        self._ranks = ranks
        self._rng = np.random.default_rng(seed_sequence(seed, "bank"))
        self._opened: dict[str, _Opened] = {}

    def open(self, reader: Reader, folder: Path) -> None:
        """Map the store's banks, built first if they are not in the folder; at every start."""
        for kind in ("pixel", "region"):
            rows = open_bank(reader, folder, kind)
            # A few rows of each class are looked at: the whole column would be the whole file.
            first = [bisect_left(rows["class"], k) for k in range(self._num_classes + 1)]
            self._opened[kind] = _Opened(rows, np.array(first))

    def fill(self, reader: Reader) -> None:
        """Nothing: a bank is full."""

    def push(self, batch: Batch) -> None:
        """Nothing: a bank is full."""

    def pixel_contrast(self, batch: Batch) -> Contrast:
        """Draw pixel samples, class-balanced; the batch's own records are not usable."""
        return self._draw("pixel", self._settings.pixel_contrast, batch)

    def region_contrast(self, batch: Batch) -> Contrast:
        """Draw region centers, class-balanced; the batch's own records are not usable."""
        return self._draw("region", self._settings.region_contrast, batch)

    def state_dict(self) -> dict[str, Any]:
        """The generator it draws from: all that changes."""
        return {"generator": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._rng.bit_generator.state = state["generator"]

    def _draw(self, kind: str, wanted: int, batch: Batch) -> Contrast:
        assert self._opened, "a bank is opened before its first contrast"
        rows, first = self._opened[kind]
        per_class = contrast_per_class(wanted, self._num_classes)
        counts = np.diff(first)
        # Offsets after a class's last embedding are drawn only where it has too few of them.
        offsets = np.stack(
            [
                self._rng.choice(max(count, per_class), per_class, replace=False, shuffle=False)
                for count in counts.tolist()
            ]
        )
        absent = offsets >= counts[:, None]
        drawn = rows[np.where(absent, len(rows) - 1, first[:-1, None] + offsets).ravel()]
        records = self._move(drawn["record"])
        own = self._ranks.gather(batch.record)
        usable = (records != NO_RECORD) & (records[:, None] != own).all(1)
        classes = torch.arange(self._num_classes, device=self._device)
        embeddings = self._move(drawn["embedding"]).float()
        return Contrast(embeddings, usable, classes.repeat_interleave(per_class))

    def _move(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
