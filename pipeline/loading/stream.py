"""Records of the store as batches: read in workers, raw and small; decoded on the device."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.config.augment import WHOLE, Augment
from pipeline.config.base import STRIDE
from pipeline.datasets.views import TABLE, grid_valid
from pipeline.loading.augmentation import Window, cut_windows, draw_window
from pipeline.loading.batch import Batch, Targets
from pipeline.loading.workers import PREFETCH_FACTOR, move_ahead, open_loader
from pipeline.ops.attention_map import attention
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from store.arrays import MAPS, TARGETS, batch_arrays
from store.grid import nearest
from store.order import epoch_order
from store.reader import Reader
from store.schema import StoreSpec, map_arrays

_CELL_PX = {"x": STRIDE, "feature_x": 1}  # last axis -> elements along a cell of the feature grid


class _Records(Dataset[dict[str, Tensor]]):
    """A batch of records per item, as raw tensors: what workers hand over stays uint8 and small."""

    def __init__(self, reader: Reader, names: tuple[str, ...], augment: Augment, seed: int) -> None:
        self._reader, self._names, self._augment, self._seed = reader, names, augment, seed
        size = reader.spec.height, reader.spec.width
        self._crops = augment.cut_size(*size) != size
        axes = {name: array.axes[-1] for name, array in reader.arrays.items()}
        axes |= {"grid_labels": "feature_x", "grid_valid": "feature_x"}
        self._cell_px = {name: _CELL_PX[axis] for name, axis in axes.items() if axis in _CELL_PX}

    def __getitem__(self, item: tuple[int, np.ndarray]) -> dict[str, Tensor]:
        step, records = item
        spec, arrays = self._reader.spec, self._reader.read(records, self._names)
        kept = {name: array for name, array in arrays.items() if name not in TABLE}
        kept["grid_valid"] = grid_valid(arrays)
        kept["grid_labels"] = nearest(arrays["labels"], spec.feature_height, spec.feature_width)
        if self._augment != WHOLE:
            kept = cut_windows(kept, self._draw(step, records, kept["grid_valid"]), self._cell_px)
        kept["record"] = np.asarray(records, dtype=np.int64)
        tensors = {name: torch.from_numpy(array) for name, array in kept.items()}
        if self._crops and "auxiliary_attention" in tensors:
            # Of length one over the valid pixels, of which there are fewer now.
            whole = tensors["auxiliary_attention"]
            tensors["auxiliary_attention"] = attention(whole, tensors["grid_valid"]).view_as(whole)
        return tensors

    def _draw(self, step: int, records: np.ndarray, valid: np.ndarray) -> list[Window]:
        each = zip(valid, records.tolist(), strict=True)
        return [draw_window(self._augment, on, self._seed, step, record) for on, record in each]


class _Batches:
    """Step and record numbers of the batches of some steps: a pure function of the seed.

    A step's batch is cut into `accumulate` micro-batches one after the other, and each of them is
    sharded among the ranks.
    """

    def __init__(
        self,
        num_records: int,
        unit_size: int,
        seed: int,
        batch_size: int,
        steps: range,
        accumulate: int = 1,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        if batch_size > num_records:
            raise ValueError(
                f"training.batch_size is {batch_size}, but the store holds {num_records} records; "
                "lower the batch size or extract more views"
            )
        self._order = (num_records, unit_size, seed)
        self._batch_size, self._steps = batch_size, steps
        self._accumulate, self._ranks = accumulate, ranks

    def __len__(self) -> int:
        return len(self._steps) * self._accumulate

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        num_records, size = self._order[0], self._batch_size
        per_epoch = num_records // size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in self._steps:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = epoch_order(*self._order, epoch)
            first = step % per_epoch * size
            for micro_batch in np.split(order[first : first + size], self._accumulate):
                yield step, self._ranks.shard(micro_batch)


def stream_arrays(spec: StoreSpec, needs: Collection[str]) -> tuple[str, ...]:
    """Names of the stored arrays that a training with the given needs reads of each record."""
    names = [name for need in needs for name in batch_arrays(need)]
    stored = [array for name in names for array in map_arrays(spec, name).values()]
    return ("image", "labels", *TABLE, *stored)


def stream(
    reader: Reader,
    *,
    seed: int,
    batch_size: int,
    steps: range,
    device: torch.device,
    num_workers: int = 0,
    needs: Collection[str] = TARGETS,
    augment: Augment = WHOLE,
    prefetch_factor: int = PREFETCH_FACTOR,
    accumulate: int = 1,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[Batch]:
    """Stream the batches of the given steps.

    Workers read and cut; a GPU gets the next batch while it is busy with the one before, encoded,
    and decodes it there. `pipeline.loading.memory_budget` says how much memory that takes, and
    `store.order.epoch_order` how well the records are mixed.

    Args:
        reader: an open store.
        seed: names the order and the windows; the same seed gives the same batches, whatever
            `num_workers`.
        batch_size: of a step, on all ranks together; an epoch's last incomplete batch is dropped.
        steps: which steps; `range(n, N)` goes on where a run stopped after n.
        device: where decoded batches live.
        num_workers: processes that read ahead; 0 reads in this one.
        needs: names of TARGETS; only what is needed is read.
        augment: what to cut out of each record, and how often to mirror it.
        prefetch_factor: batches that each process reads ahead.
        accumulate: micro-batches of a step, streamed one by one.
        ranks: this one's shard of every micro-batch is streamed.
    """
    loader = open_loader(
        _Records(reader, stream_arrays(reader.spec, needs), augment, seed),
        _Batches(len(reader), reader.spec.unit_size, seed, batch_size, steps, accumulate, ranks),
        seed,
        num_workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=prefetch_factor,
    )
    for raw in move_ahead(loader, device):
        yield decode_batch(reader, raw, needs)


def decode_batch(reader: Reader, raw: Mapping[str, Tensor], needs: Collection[str]) -> Batch:
    """Turn the raw arrays of some records into a batch, on the device where they lie."""
    names = [name for need in needs for name in batch_arrays(need)]
    arrays = {name: reader.decode(name, raw) if name in MAPS else raw[name] for name in names}
    own = ("record", "image", "labels", "grid_labels", "grid_valid")
    targets = Targets.widened(arrays) if arrays else None
    return Batch(**{name: raw[name] for name in own}, targets=targets)
