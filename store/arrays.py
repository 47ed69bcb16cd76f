"""The arrays of a store, in one table: what layout, schema, targets and documentation follow.

Adding an array is adding one line to `ARRAYS` (and raising `store.schema.SCHEMA_VERSION`).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MAX_KEY_BYTES = 4096
"""Of a sample's key in UTF-8; the paths of most systems are no longer."""


class Axis(NamedTuple):
    """An axis of an array: its symbol in the documentation and its size.

    Attributes:
        symbol: As in [N,K,h,w].
        size: The field of `store.schema.StoreSpec` that holds it, or a number.
    """

    symbol: str
    size: str | int


AXES: dict[str, Axis] = {
    "record": Axis("N", "num_records"),
    "colour": Axis("3", 3),
    "y": Axis("H", "height"),
    "x": Axis("W", "width"),
    "class": Axis("K", "num_classes"),
    "channel": Axis("D", "feature_channels"),
    "feature_y": Axis("h", "feature_height"),
    "feature_x": Axis("w", "feature_width"),
    "slot": Axis("P", "sample_slots"),
}


@dataclass(frozen=True)
class ArrayRow:
    """One row of the table.

    Attributes:
        name: Its name in the group; the arrays of an encoding append their suffixes to it.
        axes: The axes of one record, names in `AXES`.
        dtype: A numpy dtype name, or "str"; None is stored by the spec's encoding.
        target: Which of the teacher's targets it belongs to; None is stored always.
        meaning: For the documentation.
        in_batch: Whether a training that needs the target reads it with every batch.
    """

    name: str
    axes: tuple[str, ...]
    dtype: str | None
    target: str | None
    meaning: str
    in_batch: bool = True

    @property
    def encoding(self) -> str | None:
        """Return the field of `store.schema.StoreSpec` that holds its encoding, if it has one."""
        return None if self.dtype else f"{self.name}_encoding"


_GRID = ("feature_y", "feature_x")

ARRAYS: tuple[ArrayRow, ...] = (
    ArrayRow("image", ("colour", "y", "x"), "uint8", None, "RGB, 0..255, before normalisation"),
    ArrayRow("labels", ("y", "x"), "uint8", None, "class, 255 = void or padding"),
    ArrayRow("logits", ("class", *_GRID), None, "logits", "before softmax"),
    ArrayRow("features", ("channel", *_GRID), None, "features", "input of the classifier"),
    ArrayRow(
        "auxiliary_attention", _GRID, "float16", "auxiliary_attention", "of the auxiliary logits"
    ),
    ArrayRow("region_center", ("class", "channel"), "float16", "regions", "mean embedding, norm 1"),
    ArrayRow("region_pixels", ("class",), "int32", "regions", "pixels of a class, 0 = absent"),
    ArrayRow(
        "pixel_sample", ("slot", "channel"), "float16", "regions", "embeddings of pixels", False
    ),
    ArrayRow("pixel_sample_class", ("slot",), "uint8", "regions", "255 = empty slot", False),
    ArrayRow("key", (), "str", None, "name of the image in the dataset's index"),
    ArrayRow("view_index", (), "int32", None, "which view of the image"),
    ArrayRow("source_height", (), "int32", None, "height of the image, in pixels"),
    ArrayRow("source_width", (), "int32", None, "width of the image, in pixels"),
    ArrayRow("scale", (), "float64", None, "factor that the image was resized by"),
    ArrayRow("flip", (), "bool", None, "whether it was mirrored"),
    ArrayRow("top", (), "int32", None, "first row of the window in the resized image"),
    ArrayRow("left", (), "int32", None, "first column of the window in the resized image"),
    ArrayRow("crop_height", (), "int32", None, "height of the window, in pixels"),
    ArrayRow("crop_width", (), "int32", None, "width of the window, in pixels"),
)

TARGETS: tuple[str, ...] = tuple(dict.fromkeys(one.target for one in ARRAYS if one.target))
"""What a teacher may be asked for."""

MAPS: tuple[str, ...] = tuple(one.name for one in ARRAYS if one.encoding)
"""The arrays that are stored by an encoding."""


def batch_arrays(target: str) -> tuple[str, ...]:
    """Name the arrays, maps decoded, that a batch holds of one target."""
    return tuple(one.name for one in ARRAYS if one.target == target and one.in_batch)


def arrays_table() -> str:
    """Return the table of the documentation: every array in Markdown."""
    lines = ["| array | shape | dtype | target | meaning |", "|---|---|---|---|---|"]
    for one in ARRAYS:
        shape = ",".join(AXES[axis].symbol for axis in ("record", *one.axes))
        cells = (f"`{one.name}`", f"[{shape}]", one.dtype or f"by `{one.encoding}`")
        lines.append(f"| {' | '.join(cells)} | {one.target or 'always'} | {one.meaning} |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class ArraySpec:
    """One array of one store.

    Attributes:
        name: Its name in the group.
        shape: [num_records, ...].
        dtype: A numpy dtype name, or "str".
        unit_size: Records in one file.
        axes: A name for every axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    unit_size: int
    axes: tuple[str, ...]

    @property
    def sharded(self) -> bool:
        """Tell whether a file is a shard with one inner chunk a record, rather than one chunk.

        Maps are read record by record; all else is small, and many small chunks are slow.
        """
        return self.axes[-1] in ("x", "feature_x")

    @property
    def record_shape(self) -> tuple[int, ...]:
        """Return the shape of one record."""
        return self.shape[1:]

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Return the shape of one file: a unit of records."""
        return (self.unit_size, *self.record_shape)

    @property
    def record_bytes(self) -> int:
        """Return a record's bytes before compression (0 for strings, whose length varies)."""
        size = math.prod(self.record_shape)
        return 0 if self.dtype == "str" else np.dtype(self.dtype).itemsize * size

    @property
    def max_text_bytes(self) -> int:
        """Return the bytes that one file of strings may have before compression."""
        return 4 + self.unit_size * (4 + MAX_KEY_BYTES)

    def unit_rows(self, unit: int) -> range:
        """Return the positions of one unit's records inside it; the last may be short."""
        return range(min(self.unit_size, self.shape[0] - unit * self.unit_size))
