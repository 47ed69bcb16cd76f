"""What a dataset's files hold, in figures and words: what answers "why is my IoU 0"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.checking import Checked
from pipeline.datasets.decoding import UNKNOWN_COLOUR
from pipeline.datasets.index import ClassTable

UNKNOWN = "(unknown)"
VOID_NAME = "(void)"
UNKNOWN_COLOUR_NAME = "(void: a colour not in the table)"


@dataclass(frozen=True)
class Value:
    """One value of a split's label files: its class, pixels, their share, and files with it."""

    value: int
    meaning: str
    pixels: int
    share: float
    images: int


@dataclass(frozen=True)
class SplitStatistics:
    """What the readable files of a split hold.

    Without labels, `values` and `absent` are empty.

    Attributes:
        images: how many can be read.
        height: least, median and most, in pixels; zeros without images.
        width: as height.
        smaller: name of a crop -> how many images it reaches beyond, at scale 1.
        values: of its label files, in their order.
        absent: names of the classes without a pixel.
        void: share of pixels without a class; None without labels.
    """

    images: int
    height: tuple[float, float, float]
    width: tuple[float, float, float]
    smaller: dict[str, int]
    values: tuple[Value, ...]
    absent: tuple[str, ...]
    void: float | None


def describe_splits(
    classes: ClassTable, checked: Checked, crops: Mapping[str, tuple[int, int]]
) -> dict[str, SplitStatistics]:
    """Describe every split.

    Args:
        classes: of the dataset.
        checked: what opening its files showed.
        crops: name -> height and width of what is cut out of the images.
    """
    return {split: _describe(classes, checked, crops, split) for split in checked.splits}


def _describe(
    classes: ClassTable, checked: Checked, crops: Mapping[str, tuple[int, int]], split: str
) -> SplitStatistics:
    sizes, id_counts = checked.sizes[split], checked.id_counts[split]
    total, meanings = max(1, int(id_counts.sum())), _meanings(classes)
    values = tuple(
        Value(
            value=int(value),
            meaning=meanings[value],
            pixels=int(id_counts[value]),
            share=float(id_counts[value] / total),
            images=int(checked.id_images[split][value]),
        )
        for value in np.flatnonzero(id_counts)
    )
    present = {one.meaning for one in values}
    return SplitStatistics(
        images=len(sizes),
        height=_spread(sizes[:, 0]),
        width=_spread(sizes[:, 1]),
        smaller={name: int((sizes < crop).any(axis=1).sum()) for name, crop in crops.items()},
        values=values,
        absent=tuple(name for name in classes.names if values and name not in present),
        void=sum(one.share for one in values if one.value in classes.void_ids) if values else None,
    )


def _meanings(classes: ClassTable) -> list[str]:
    """Name what each id 0..255 of a label file means."""
    names = [UNKNOWN] * 256
    for value in classes.void_ids:
        names[value] = VOID_NAME
    if classes.colours:
        names[UNKNOWN_COLOUR] = UNKNOWN_COLOUR_NAME
    for value, name in zip(classes.label_ids, classes.names, strict=True):
        names[value] = name
    return names


def _spread(sides: NDArray[np.int64]) -> tuple[float, float, float]:
    if not len(sides):
        return 0.0, 0.0, 0.0
    return float(sides.min()), float(np.median(sides)), float(sides.max())


def write_lines(
    splits: Mapping[str, SplitStatistics], crops: Mapping[str, tuple[int, int]]
) -> Iterator[str]:
    """Put the statistics into lines for a terminal."""
    for split, one in splits.items():
        yield f"{split}: {one.images} images"
        for name, spread in (("height", one.height), ("width", one.width)):
            least, median, most = spread
            yield f"  {name:8}{least:g} .. {most:g} px, median {median:g}"
        for name, (height, width) in crops.items():
            yield f"  smaller than {name} ({height}x{width}): {one.smaller[name]}"
        if one.values:
            longest = max(len(value.meaning) for value in one.values)
            yield f"  value  {'class':{longest}}  {'pixels':>9}  images"
            for value in one.values:
                share = f"{value.share:9.2%}"
                yield f"  {value.value:5}  {value.meaning:{longest}}  {share}  {value.images:6}"
            yield f"  classes absent: {', '.join(one.absent) or 'none'}"
