"""Records of the store as batches: read in workers, raw and small; decoded on the device."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.augmentation import WHOLE, Augment, Window, cut_windows, draw_window
from pipeline.loading import PREFETCH_FACTOR, move_ahead, open_loader
from pipeline.losses.at import attention
from pipeline.ranks import ALONE, Ranks
from pipeline.views import View
from store.arrays import MAPS, TARGETS, batch_arrays
from store.grid import nearest
from store.order import epoch_order
from store.reader import Reader
from store.schema import VOID, StoreSpec, map_arrays

TABLE = tuple(field.name for field in fields(View))


@dataclass(frozen=True)
class Targets:
    """What the teacher said about a batch: as much of it as a run needs.

    Attributes:
        arrays: by the names that `store.arrays.batch_arrays` gives.
    """

    arrays: Mapping[str, Tensor]

    @property
    def logits(self) -> Tensor:
        """float32 [B, K, h, w], before softmax."""
        return self.arrays["logits"]

    @property
    def features(self) -> Tensor:
        """float32 [B, D, h, w], the layer before the classifier."""
        return self.arrays["features"]

    @property
    def auxiliary_attention(self) -> Tensor:
        """float32 [B, h, w], L2-normalised over the pixels inside the image."""
        return self.arrays["auxiliary_attention"]

    @property
    def region_center(self) -> Tensor:
        """float32 [B, K, D], zero where a class is absent."""
        return self.arrays["region_center"]

    @property
    def region_pixels(self) -> Tensor:
        """int32 [B, K]."""
        return self.arrays["region_pixels"]


@dataclass(frozen=True)
class Batch:
    """Views, their labels, and the teacher's targets, on the training device.

    Attributes:
        record: int64 [B], numbers of the records.
        image: uint8 RGB [B, 3, H, W].
        labels: uint8 [B, H, W], 255 = void or padding.
        grid_labels: uint8 [B, h, w], the labels at the feature grid (nearest).
        grid_inside: bool [B, h, w], False = padding.
        targets: what the teacher said; None where a run learns from labels alone.
    """

    record: Tensor
    image: Tensor
    labels: Tensor
    grid_labels: Tensor
    grid_inside: Tensor
    targets: Targets | None

    def __len__(self) -> int:
        return len(self.record)

    def first(self, size: int) -> Batch:
        """The batch of its first `size` views."""
        views = {
            name: value[:size] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        stored = self.targets.arrays if self.targets is not None else {}
        targets = Targets({name: array[:size] for name, array in stored.items()})
        return Batch(**views, targets=targets if stored else None)

    @property
    def anchors(self) -> Tensor:
        """Pixels that take part as memory anchors, bool [B, h, w].

        Labelled pixels; in a record without any label every non-padding pixel, so that unlabelled
        images distil.
        """
        labelled = self.grid_labels != VOID
        unlabelled_record = ~labelled.flatten(1).any(dim=1).view(-1, 1, 1)
        return self.grid_inside & (labelled | unlabelled_record)


def grid_inside(arrays: Mapping[str, np.ndarray], stride: int) -> np.ndarray:
    """Where the views of some records lie on their images, bool [n, h, w], from the view table."""
    rows = zip(*(arrays[name] for name in TABLE), strict=True)
    return np.stack([View(*row).grid_inside(stride) for row in rows])


class _Records(Dataset[dict[str, Tensor]]):
    """A batch of records per item, as raw tensors: what workers hand over stays uint8 and small."""

    def __init__(self, reader: Reader, names: tuple[str, ...], augment: Augment, seed: int) -> None:
        self._reader, self._names, self._augment, self._seed = reader, names, augment, seed
        size = reader.spec.height, reader.spec.width
        self._crops = augment.cut_size(*size) != size
        axes = {name: array.axes[-1] for name, array in reader.arrays.items()}
        axes |= {"grid_labels": "feature_x", "grid_inside": "feature_x"}
        # Last axis -> elements along a cell of the feature grid.
        cell_px = {"x": reader.spec.stride, "feature_x": 1}
        self._cell_px = {name: cell_px[axis] for name, axis in axes.items() if axis in cell_px}

    def __getitem__(self, item: tuple[int, np.ndarray]) -> dict[str, Tensor]:
        step, records = item
        spec, arrays = self._reader.spec, self._reader.read(records, self._names)
        kept = {name: array for name, array in arrays.items() if name not in TABLE}
        kept["grid_inside"] = grid_inside(arrays, spec.stride)
        kept["grid_labels"] = nearest(arrays["labels"], spec.feature_height, spec.feature_width)
        if self._augment != WHOLE:
            kept = cut_windows(kept, self._draw(step, records, kept["grid_inside"]), self._cell_px)
        kept["record"] = np.asarray(records, dtype=np.int64)
        tensors = {name: torch.from_numpy(array) for name, array in kept.items()}
        if self._crops and "auxiliary_attention" in tensors:
            # Of length one over the pixels inside, of which there are fewer now.
            whole = tensors["auxiliary_attention"]
            tensors["auxiliary_attention"] = attention(whole, tensors["grid_inside"]).view_as(whole)
        return tensors

    def _draw(self, step: int, records: np.ndarray, inside: np.ndarray) -> list[Window]:
        stride, seed = self._reader.spec.stride, self._seed
        each = zip(inside, records.tolist(), strict=True)
        return [draw_window(self._augment, on, stride, seed, step, record) for on, record in each]


class _Batches:
    """Step and record numbers of the batches of some steps: a pure function of the seed.

    A step's batch is cut into `accumulate` micro-batches one after the other, and each of them is
    shared out among the ranks.
    """

    def __init__(
        self,
        num_records: int,
        unit_size: int,
        seed: int,
        batch_size: int,
        steps: range,
        accumulate: int = 1,
        ranks: Ranks = ALONE,
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
                yield step, self._ranks.share(micro_batch)


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
    ranks: Ranks = ALONE,
) -> Iterator[Batch]:
    """Stream the batches of the given steps.

    Workers read and cut; a GPU gets the next batch while it is busy with the one before, encoded,
    and decodes it there. `pipeline.flight` says how much memory that takes, and
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
        ranks: this one's share of every micro-batch is streamed.
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
    arrays = {}
    for name in (name for need in needs for name in batch_arrays(need)):
        value = reader.decode(name, raw) if name in MAPS else raw[name]
        arrays[name] = value.float() if value.is_floating_point() else value
    own = ("record", "image", "labels", "grid_labels", "grid_inside")
    targets = Targets(arrays) if arrays else None
    return Batch(**{name: raw[name] for name in own}, targets=targets)
