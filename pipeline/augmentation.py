"""Sub-crops and flips of stored records: cut on the feature grid, so that every map still fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.frozen import Fraction, Frozen, Side

_STREAM = int.from_bytes(b"augm")


class Augment(Frozen):
    """How often a stored record is mirrored, and the size in pixels of what is cut out of it.

    A side that is not given stays whole. Region centers and stored pixel samples stay those of the
    whole record, so the queues are filled as ever. The teacher never saw the cut or the mirrored
    image: the audit's `crop_cosine` and `flip_cosine` say how near its features come to these.
    """

    flip_probability: Fraction = 0.0
    crop_height: Side | None = None
    crop_width: Side | None = None

    @property
    def crops(self) -> bool:
        """Whether less than a whole record may be left."""
        return self.crop_height is not None or self.crop_width is not None

    def cut_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels of what is left of records of height x width pixels.

        Raises:
            ValueError: more is asked for than a record has.
        """
        size = self.crop_height or height, self.crop_width or width
        if size[0] > height or size[1] > width:
            raise ValueError(
                f"augment: a crop of {size[0]} x {size[1]} pixels does not fit into records of "
                f"{height} x {width}; lower crop_height or crop_width, or extract larger views "
                "(store.crop)"
            )
        return size


WHOLE = Augment()
"""Records as they are stored."""


@dataclass(frozen=True)
class Window:
    """A part of one record, in cells of the feature grid, mirrored last if `flip`.

    One geometry for all that a record has, which keeps image, labels and the teacher's maps
    together. A cell stands for its top left pixel, so a mirrored map lies up to stride - 1 pixels
    beside the map of the mirrored image; mirroring twice is the identity.
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
            cell_px: 1 for maps at the feature grid, the store's stride for image and labels.
        """
        bottom, right = self.top + self.height, self.left + self.width
        part = array[
            ..., self.top * cell_px : bottom * cell_px, self.left * cell_px : right * cell_px
        ]
        return part[..., ::-1] if self.flip else part


def draw_window(
    augment: Augment, inside: NDArray[np.bool_], stride: int, seed: int, step: int, record: int
) -> Window:
    """Draw the window of one record in one step, a pure function of its arguments.

    Uniform among the windows that lie on the image, where the image is large enough; otherwise the
    window holds as much of it as there is.

    Args:
        augment: size and probability.
        inside: where the record lies on its image, bool [h, w] at the feature grid.
        stride: pixels of the image along one cell of that grid.
        seed: of the run; runs of one seed see the same windows.
        step: which training step.
        record: the record's number.

    Raises:
        ValueError: the record is smaller than the window.
    """
    rows, columns = inside.shape
    size = augment.cut_size(rows * stride, columns * stride)
    height, width = size[0] // stride, size[1] // stride
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM, step, record)))
    flip = bool(random.random() < augment.flip_probability)
    top = _draw_start(np.any(inside, axis=1), height, random)
    left = _draw_start(np.any(inside, axis=0), width, random)
    return Window(top, left, height, width, flip)


def _draw_start(inside: NDArray[np.bool_], count: int, random: np.random.Generator) -> int:
    cells = np.flatnonzero(inside)
    first, stop = (cells[0], cells[-1] + 1) if len(cells) else (0, len(inside))
    lowest = min(first, len(inside) - count)
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
