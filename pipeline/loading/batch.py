"""What a training step gets: views, labels and the teacher's targets, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from store.schema import VOID


@dataclass(frozen=True)
class Targets:
    """The teacher's targets for a batch: as much of it as a run needs.

    Attributes:
        arrays: by the names that `store.arrays.batch_arrays` gives.
    """

    arrays: Mapping[str, Tensor]

    @classmethod
    def widened(cls, arrays: Mapping[str, Tensor]) -> Targets:
        """Hold floating arrays as float32, whatever they were stored or rounded as."""
        wide = {name: x.float() if x.is_floating_point() else x for name, x in arrays.items()}
        return cls(wide)

    @property
    def logits(self) -> Tensor:
        """Return float32 [B, K, h, w], before softmax."""
        return self.arrays["logits"]

    @property
    def features(self) -> Tensor:
        """Return float32 [B, D, h, w], the classifier's input; [B, r, h, w] in a subspace."""
        return self.arrays["features"]

    @property
    def auxiliary_attention(self) -> Tensor:
        """Return float32 [B, h, w], L2-normalised over the pixels inside the image."""
        return self.arrays["auxiliary_attention"]

    @property
    def region_center(self) -> Tensor:
        """Return float32 [B, K, D], zero where a class is absent; [B, K, r] in a subspace."""
        return self.arrays["region_center"]

    @property
    def region_pixels(self) -> Tensor:
        """Return int32 [B, K]."""
        return self.arrays["region_pixels"]


@dataclass(frozen=True)
class Batch:
    """Views, their labels, and the teacher's targets, on the training device.

    Attributes:
        record: int64 [B], numbers of the records.
        image: uint8 RGB [B, 3, H, W].
        labels: uint8 [B, H, W], 255 = void or padding.
        grid_labels: uint8 [B, h, w], the labels at the feature grid (nearest).
        grid_valid: bool [B, h, w], False = padding.
        targets: the teacher's; None where a run learns from labels alone.
    """

    record: Tensor
    image: Tensor
    labels: Tensor
    grid_labels: Tensor
    grid_valid: Tensor
    targets: Targets | None

    def __len__(self) -> int:
        return len(self.record)

    def first(self, size: int) -> Batch:
        """Return the batch of its first `size` views."""
        views = {
            name: value[:size] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        stored = self.targets.arrays if self.targets is not None else {}
        targets = Targets({name: array[:size] for name, array in stored.items()})
        return Batch(**views, targets=targets if stored else None)

    @property
    def anchors(self) -> Tensor:
        """Mark the pixels that take part as memory anchors, bool [B, h, w].

        Labelled pixels; in a record without any label every non-padding pixel, so that unlabelled
        images distil.
        """
        labelled = self.grid_labels != VOID
        unlabelled_record = ~labelled.flatten(1).any(dim=1).view(-1, 1, 1)
        return self.grid_valid & (labelled | unlabelled_record)
