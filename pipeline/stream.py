"""Records of the store as batches: read in workers, raw and small; decoded on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.loading import open_loader
from pipeline.views import View
from store.grid import nearest
from store.order import epoch_order
from store.reader import Reader
from store.schema import VOID

TABLE = tuple(field.name for field in fields(View))


@dataclass(frozen=True)
class Targets:
    """What the teacher said about a batch.

    Attributes:
        logits: float32 [B, K, h, w].
        features: float32 [B, D, h, w], the layer before the classifier.
        region_center: float32 [B, K, D], zero where a class is absent.
        region_pixels: int32 [B, K].
    """

    logits: Tensor
    features: Tensor
    region_center: Tensor
    region_pixels: Tensor


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

    @property
    def anchors(self) -> Tensor:
        """Pixels that take part as memory anchors, bool [B, h, w].

        Labelled pixels; in a record without any label every non-padding pixel, so that unlabelled
        images distil.
        """
        labelled = self.grid_labels != VOID
        unlabelled_record = ~labelled.flatten(1).any(dim=1).view(-1, 1, 1)
        return self.grid_inside & (labelled | unlabelled_record)


def views_of(arrays: Mapping[str, np.ndarray]) -> list[View]:
    """The views of some records, from the columns of the view table."""
    return [View(*row) for row in zip(*(arrays[name] for name in TABLE), strict=True)]


class _Records(Dataset[dict[str, Tensor]]):
    """A batch of records per item, as raw tensors: what workers hand over stays uint8 and small."""

    def __init__(self, reader: Reader, names: tuple[str, ...], grid: tuple[int, int]) -> None:
        self._reader, self._names, self._grid = reader, names, grid

    def __getitem__(self, records: np.ndarray) -> dict[str, Tensor]:
        arrays = self._reader.read(records, self._names)
        inside = [view.grid_inside() for view in views_of(arrays)]
        arrays = {name: array for name, array in arrays.items() if name not in TABLE}
        arrays["grid_inside"] = np.stack(inside)
        arrays["grid_labels"] = nearest(arrays["labels"], *self._grid)
        arrays["record"] = np.asarray(records, dtype=np.int64)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class _Batches:
    """Record numbers of the batches `start_step`, .., `steps - 1`: a pure function of the seed."""

    def __init__(
        self, num_records: int, unit_size: int, seed: int, batch_size: int, steps: range
    ) -> None:
        if batch_size > num_records:
            raise ValueError(
                f"training.batch_size is {batch_size}, but the store holds {num_records} records; "
                "lower the batch size or extract more views"
            )
        self._order = (num_records, unit_size, seed)
        self._batch_size, self._steps = batch_size, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[np.ndarray]:
        num_records, size = self._order[0], self._batch_size
        per_epoch = num_records // size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in self._steps:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = epoch_order(*self._order, epoch)
            first = step % per_epoch * size
            yield order[first : first + size]


def stream_arrays(reader: Reader, with_targets: bool) -> tuple[str, ...]:
    """Names of the arrays that a training reads of each record."""
    maps = [*reader.map_arrays("logits").values(), *reader.map_arrays("features").values()]
    targets = (*maps, "region_center", "region_pixels") if with_targets else ()
    return ("image", "labels", *TABLE, *targets)


def stream(
    reader: Reader,
    *,
    seed: int,
    batch_size: int,
    steps: range,
    device: torch.device,
    num_workers: int = 0,
    with_targets: bool = True,
) -> Iterator[Batch]:
    """Stream the batches of the given steps.

    Args:
        reader: an open store.
        seed: names the order; the same seed gives the same batches, whatever `num_workers`.
        batch_size: B; the last incomplete batch of an epoch is dropped.
        steps: which steps; `range(n, N)` goes on where a run stopped after n.
        device: where decoded batches live.
        num_workers: processes that read ahead; 0 reads in this one.
        with_targets: read logits and features, too.
    """
    spec = reader.spec
    grid = (spec.feature_height, spec.feature_width)
    loader = open_loader(
        _Records(reader, stream_arrays(reader, with_targets), grid),
        _Batches(len(reader), spec.unit_size, seed, batch_size, steps),
        seed,
        num_workers,
        pin_memory=device.type == "cuda",
    )
    for raw in loader:
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in raw.items()}
        yield decode_batch(reader, moved, with_targets)


def decode_batch(reader: Reader, raw: dict[str, Tensor], with_targets: bool) -> Batch:
    """Turn the raw arrays of some records into a batch, on the device where they lie."""
    targets = None
    if with_targets:
        targets = Targets(
            logits=reader.decode("logits", raw),
            features=reader.decode("features", raw),
            region_center=raw["region_center"].float(),
            region_pixels=raw["region_pixels"],
        )
    own = ("record", "image", "labels", "grid_labels", "grid_inside")
    return Batch(**{name: raw[name] for name in own}, targets=targets)
