"""Records of the store as batches: read in workers, raw and small; decoded on the device."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.config.augment import WHOLE, Augment
from pipeline.config.params import StudentConfig
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


@dataclass(frozen=True)
class LoaderConfig:
    """Order, size and content of batches, and how they are read.

    Attributes:
        seed: names the order and the windows; the same seed gives the same batches, whatever
            `num_workers`.
        batch_size: of a step, on all ranks together; an epoch's last incomplete batch is dropped.
        needs: names of TARGETS; only what is needed is read.
        augment: what to cut out of each record, and how often to mirror it.
        accumulate: micro-batches of a step, streamed one by one.
        num_workers: processes that read ahead; 0 reads in this one.
        prefetch_factor: batches that each process reads ahead.
    """

    seed: int
    batch_size: int
    needs: Collection[str] = TARGETS
    augment: Augment = WHOLE
    accumulate: int = 1
    num_workers: int = 0
    prefetch_factor: int = PREFETCH_FACTOR

    @classmethod
    def of_student(
        cls,
        student: StudentConfig,
        needs: Collection[str],
        num_workers: int = 0,
        prefetch_factor: int = PREFETCH_FACTOR,
    ) -> LoaderConfig:
        """Take from a student's settings what its batches depend on."""
        training = student.training
        return cls(
            seed=student.seed,
            batch_size=training.batch_size,
            needs=needs,
            augment=training.augment,
            accumulate=training.accumulate,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
        )


class _Records(Dataset[dict[str, Tensor]]):
    """A batch of records per item, as raw tensors: what workers hand over stays uint8 and small."""

    def __init__(self, reader: Reader, config: LoaderConfig) -> None:
        self._reader, self._names = reader, stream_arrays(reader.spec, config.needs)
        self._augment, self._seed = config.augment, config.seed
        size = reader.spec.height, reader.spec.width
        self._crops = config.augment.cut_size(*size) != size
        axes = {name: array.axes[-1] for name, array in reader.arrays.items()}
        axes |= {"grid_labels": "feature_x", "grid_valid": "feature_x"}
        # Last axis -> elements along a cell of the feature grid.
        cell_px = {"x": reader.spec.stride, "feature_x": 1}
        self._cell_px = {name: cell_px[axis] for name, axis in axes.items() if axis in cell_px}

    def __getitem__(self, item: tuple[int, NDArray[np.int64]]) -> dict[str, Tensor]:
        step, records = item
        spec, arrays = self._reader.spec, self._reader.read(records, self._names)
        kept = {name: array for name, array in arrays.items() if name not in TABLE}
        kept["grid_valid"] = grid_valid(arrays, spec.stride)
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

    def _draw(
        self, step: int, records: NDArray[np.int64], valid: NDArray[np.bool_]
    ) -> list[Window]:
        stride, seed = self._reader.spec.stride, self._seed
        each = zip(valid, records.tolist(), strict=True)
        return [draw_window(self._augment, on, stride, seed, step, record) for on, record in each]


def _draw_batches(
    reader: Reader, config: LoaderConfig, steps: range, ranks: Ranks
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield step and record numbers of every micro-batch: a pure function of the seed.

    A step's batch is cut into `accumulate` micro-batches one after the other, and each of them is
    sharded among the ranks.
    """
    num_records, size = len(reader), config.batch_size
    if size > num_records:
        raise ValueError(
            f"training.batch_size is {size}, but the store holds {num_records} records; "
            "lower the batch size or extract more views"
        )
    per_epoch = num_records // size
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for step in steps:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(num_records, reader.spec.unit_size, config.seed, epoch)
        first = step % per_epoch * size
        for micro_batch in np.split(order[first : first + size], config.accumulate):
            yield step, ranks.shard(micro_batch)


def stream_arrays(spec: StoreSpec, needs: Collection[str]) -> tuple[str, ...]:
    """Name the stored arrays that a training with the given needs reads of each record."""
    names = [name for need in needs for name in batch_arrays(need)]
    stored = [array for name in names for array in map_arrays(spec, name).values()]
    return ("image", "labels", *TABLE, *stored)


def stream(
    reader: Reader,
    config: LoaderConfig,
    steps: range,
    device: torch.device,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[Batch]:
    """Stream the batches of the given steps.

    Workers read and cut; a GPU gets the next batch while it is busy with the one before, encoded,
    and decodes it there. `pipeline.loading.memory_budget` says how much memory that takes, and
    `store.order.epoch_order` how well the records are mixed.

    Args:
        reader: an open store.
        config: order, size and content of the batches, and how they are read.
        steps: which steps; `range(n, N)` goes on where a run stopped after n.
        device: where decoded batches live.
        ranks: this one's shard of every micro-batch is streamed.

    Raises:
        ValueError: the store holds fewer records than a batch.
    """
    loader = open_loader(
        _Records(reader, config),
        _draw_batches(reader, config, steps, ranks),
        config.seed,
        config.num_workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=config.prefetch_factor,
    )
    for raw in move_ahead(loader, device):
        yield decode_batch(reader, raw, config.needs)


def decode_batch(reader: Reader, raw: Mapping[str, Tensor], needs: Collection[str]) -> Batch:
    """Turn the raw arrays of some records into a batch, on the device where they lie."""
    names = [name for need in needs for name in batch_arrays(need)]
    arrays = {name: reader.decode(name, raw) if name in MAPS else raw[name] for name in names}
    own = ("record", "image", "labels", "grid_labels", "grid_valid")
    targets = Targets.widened(arrays) if arrays else None
    return Batch(**{name: raw[name] for name in own}, targets=targets)
