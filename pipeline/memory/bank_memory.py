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
from pipeline.memory.contrast_memory import BANKS, Kind, class_contrasts
from pipeline.ops.contrast import Contrast
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from pipeline.runtime.rng import seed_sequence
from store.bank import open_bank
from store.reader import Reader
from store.schema import NO_RECORD, StoreSpec


class _Opened(NamedTuple):
    """A mapped bank, and at which row each class begins (int64 [K + 1], the last is its end)."""

    rows: np.ndarray
    first: np.ndarray


class BankMemory:
    """A `ContrastMemory` that holds all there is and never changes.

    Draws are class-balanced, uniform and without replacement over a class's embeddings, on the
    host; only what was drawn goes to the device.

    Args:
        spec: of the store; K classes, D channels, or r coordinates in a subspace.
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
        self._num_classes, self._device, self._ranks = spec.num_classes, device, ranks
        self._per_class = class_contrasts(settings, spec.num_classes)
        self._rng = np.random.default_rng(seed_sequence(seed, "bank"))
        self._opened: dict[Kind, _Opened] = {}

    def fill(self, reader: Reader, *, resumed: bool = False, banks: Path = BANKS) -> None:
        """Map the store's banks, built first if they are not in their folder."""
        for kind in self._per_class:
            rows = open_bank(reader, banks, kind)
            # A few rows of each class are looked at: the whole column would be the whole file.
            first = [bisect_left(rows["class"], k) for k in range(self._num_classes + 1)]
            self._opened[kind] = _Opened(rows, np.array(first))

    def sample(self, kind: Kind, batch: Batch) -> Contrast:
        """Draw from a bank, class-balanced; what is of the batch's own records is not usable."""
        assert self._opened, "a bank is filled before its first contrast"
        drawn = self._draw(kind)
        records = self._move(drawn["record"])
        own = self._ranks.gather(batch.record)
        usable = (records != NO_RECORD) & (records[:, None] != own).all(1)
        classes = torch.arange(self._num_classes, device=self._device)
        embeddings = self._move(drawn["embedding"]).float()
        return Contrast(embeddings, usable, classes.repeat_interleave(self._per_class[kind]))

    def push(self, batch: Batch) -> None:
        """Leave the bank as it is: it holds the embeddings of every batch already."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator it draws from: all that changes."""
        return {"generator": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._rng.bit_generator.state = state["generator"]

    def _draw(self, kind: Kind) -> np.ndarray:
        """Draw rows class by class; where a class has too few, the bank's last, of no record."""
        rows, first = self._opened[kind]
        counts, wanted = np.diff(first), self._per_class[kind]
        # Offsets after a class's last embedding are drawn only where it has too few of them.
        offsets = np.stack(
            [
                self._rng.choice(max(count, wanted), wanted, replace=False, shuffle=False)
                for count in counts.tolist()
            ]
        )
        absent = offsets >= counts[:, None]
        drawn: np.ndarray = rows[
            np.where(absent, len(rows) - 1, first[:-1, None] + offsets).ravel()
        ]
        return drawn

    def _move(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
