"""What every memory of teacher embeddings offers a run: fill, sample, push, and its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pipeline.config.params import DistillationConfig
from pipeline.loading.batch import Batch
from pipeline.ops.contrast import Contrast
from store.reader import Reader

Kind = Literal["pixel", "region", "channel"]

BANKS = Path("artifacts/banks")
"""Where banks are built, and found by every run over the same store."""


@runtime_checkable
class ContrastMemory(Protocol):
    """Teacher embeddings of other images, of which each step draws those that it compares with.

    A step samples before it pushes, so that no anchor meets itself; on several ranks all memories
    draw and push the same.
    """

    def fill(self, reader: Reader, *, resumed: bool = False, banks: Path = BANKS) -> None:
        """Make the memory ready to be drawn from, at every start of a run.

        Args:
            reader: of the store.
            resumed: whether the memory's state is a checkpoint's, and stays as it is.
            banks: folder of the files that runs over the same store share.
        """

    def sample(self, kind: Kind, batch: Batch) -> Contrast:
        """Draw embeddings of one kind; those of the batch's own records are not usable."""

    def push(self, batch: Batch) -> None:
        """Take up what the batch's targets bring."""

    # Any: a checkpoint's tensors, numbers and dicts of them, each memory's its own.
    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next `push` and `sample` depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


def contrast_per_class(wanted: int, num_classes: int) -> int:
    """Return how many embeddings of each class are drawn: wanted // K + 1, as in the paper."""
    # 4096 becomes 4104 for 19 classes.
    return wanted // num_classes + 1


def class_contrasts(settings: DistillationConfig, num_classes: int) -> dict[Kind, int]:
    """Return how many embeddings of each class are drawn of pixels and of regions."""
    return {
        "pixel": contrast_per_class(settings.pixel_contrast, num_classes),
        "region": contrast_per_class(settings.region_contrast, num_classes),
    }


def check_contrast(kind: Kind, per_class: int, capacity: int) -> None:
    """Refuse at the start what the first step could not draw.

    Raises:
        ValueError: more per class than the queue holds.
    """
    if per_class > capacity:
        raise ValueError(
            f"distillation.{kind}_contrast draws {per_class} per class, but {kind}_queue holds "
            f"{capacity}; lower the one or raise the other"
        )
