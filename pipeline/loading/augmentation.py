"""Sub-crops and flips of stored records: cut on the feature grid, so that every map still fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.augment import Augment
from pipeline.config.base import STRIDE

_STREAM = int.from_bytes(b"augm")


@dataclass(frozen=True)
class Window:
    """A part of one record, in cells of the feature grid, mirrored last if `flip`.

    One geometry for all that a record has, which keeps image, labels and the teacher's maps
    together. A cell stands for its top left pixel, so a mirrored map lies up to 7 pixels beside the
    map of the mirrored image; mirroring twice is the identity.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool

    def cut(self, array: NDArray, cell_px: int = 1) -> NDArray:
        """Cut this window out of [..., rows, columns], a view of it.

        Args:
            array: with `cell_px` rows and columns for each cell.
            cell_px: 1 for maps at the feature grid, STRIDE for image and labels.
        """
        bottom, right = self.top + self.height, self.left + self.width
        part = array[
            ..., self.top * cell_px : bottom * cell_px, self.left * cell_px : right * cell_px
        ]
        return part[..., ::-1] if self.flip else part


def draw_window(
    augment: Augment, valid: NDArray[np.bool_], seed: int, step: int, record: int
) -> Window:
    """Draw the window of one record in one step, a pure function of its arguments.

    Uniform among the windows that lie on the image, where the image is large enough; otherwise the
    window holds as much of it as there is.

    Args:
        augment: size and probability.
        valid: where the record lies on its image, bool [h, w] at the feature grid.
        seed: of the run; runs of one seed see the same windows.
        step: which training step.
        record: the record's number.

    Raises:
        ValueError: the record is smaller than the window.
    """
    rows, columns = valid.shape
    size = augment.cut_size(rows * STRIDE, columns * STRIDE)
    height, width = size[0] // STRIDE, size[1] // STRIDE
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM, step, record)))
    flip = bool(random.random() < augment.flip_probability)
    top = _draw_start(np.any(valid, axis=1), height, random)
    left = _draw_start(np.any(valid, axis=0), width, random)
    return Window(top, left, height, width, flip)


def _draw_start(valid: NDArray[np.bool_], count: int, random: np.random.Generator) -> int:
    cells = np.flatnonzero(valid)
    first, stop = (cells[0], cells[-1] + 1) if len(cells) else (0, len(valid))
    lowest = min(first, len(valid) - count)
    return int(random.integers(lowest, max(lowest, stop - count) + 1))


def cut_windows(
    arrays: Mapping[str, NDArray], windows: Sequence[Window], cell_px: Mapping[str, int]
) -> dict[str, NDArray]:
    """Cut each record's window out of all its arrays that lie on a grid; still encoded, copied.

    What a record has as a whole stays as it is: scales of channels, and the region centers and
    counts, which speak for pixels outside the window, too.

    Args:
        arrays: of a batch, each [B, ...].
        windows: one a record, all of one size.
        cell_px: array -> its rows and columns along a cell of the grid, for those that have any.
    """
    return {
        name: np.stack([w.cut(one, cell_px[name]) for w, one in zip(windows, array, strict=True)])
        if name in cell_px
        else array
        for name, array in arrays.items()
    }
