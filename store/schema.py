"""What a store holds: its identity, its sizes, and every array with its file boundary.

Record n = view_index * num_images + image_index. A unit is `unit_size` consecutive records (the
last one may be shorter): it is the unit of writing, of resume and of parallelism, and no file holds
records of two units.

Schema policy: SCHEMA_VERSION rises whenever an array changes its name, shape or meaning. A store of
a newer schema is refused; so is one of an older schema, unless a line here says how it is read.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from store.encodings.base import Encoding, RecordArrays
from store.encodings.registry import encoding_from_dict
from store.errors import StoreMismatchError

SCHEMA_VERSION = 1
VOID = 255
"""The label of pixels that have none, and the class of an empty sample slot."""
TARGETS = ("logits", "features", "auxiliary_attention", "regions")
"""What a teacher may be asked for; `target_arrays` says which arrays hold it."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store.

    Attributes:
        name: Its name in the group.
        shape: [num_records, ...].
        dtype: A numpy dtype name, or "str".
        unit_size: Records in one file.
        sharded: Whether a record can be read without its neighbours (a file is then a shard with
            one inner chunk a record), or a file is one chunk.
        axes: A name for every axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    unit_size: int
    sharded: bool
    axes: tuple[str, ...]

    @property
    def record_shape(self) -> tuple[int, ...]:
        """The shape of one record."""
        return self.shape[1:]

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The shape of one file: a unit of records."""
        return (self.unit_size, *self.record_shape)

    def unit_rows(self, unit: int) -> np.ndarray:
        """Positions of one unit's records inside it, int [n]; the last unit may be short."""
        return np.arange(min(self.unit_size, self.shape[0] - unit * self.unit_size))

    @property
    def record_bytes(self) -> int:
        """Bytes of one record before compression (0 for strings, whose length varies)."""
        return 0 if self.dtype == "str" else np.dtype(self.dtype).itemsize * self._record_size

    @property
    def _record_size(self) -> int:
        return math.prod(self.record_shape)


@dataclass(frozen=True)
class StoreSpec:
    """Everything that is decided before the first record is written.

    Attributes:
        identity: Nested JSON values that decide the content (teacher, dataset, views, encodings,
            precision, schema version); hashed into the fingerprint.
        num_images, num_views: Images, and views of each.
        height, width: Size of a view's image and labels, in pixels.
        num_classes: K.
        feature_channels, feature_height, feature_width: D, h, w.
        sample_slots: P, pixel samples of one record.
        logits_encoding, features_encoding: How the two maps are stored.
        class_names: K names.
        unit_size: Records in a unit.
        targets: Those of TARGETS that are stored, in that order.
        provenance: Recorded but not hashed (library versions, device, threads).
    """

    identity: Mapping[str, Any]
    num_images: int
    num_views: int
    height: int
    width: int
    num_classes: int
    feature_channels: int
    feature_height: int
    feature_width: int
    sample_slots: int
    logits_encoding: Encoding
    features_encoding: Encoding
    class_names: tuple[str, ...]
    unit_size: int = 32
    targets: tuple[str, ...] = TARGETS
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise StoreMismatchError("size out of range", name, ">= 1", value)
        if len(self.class_names) != self.num_classes:
            raise StoreMismatchError(
                "wrong number of class names", "class_names", self.num_classes, self.class_names
            )
        if self.targets != tuple(name for name in TARGETS if name in self.targets):
            raise StoreMismatchError(
                "no such targets", "targets", f"some of {TARGETS}", self.targets
            )
        object.__setattr__(self, "logits_encoding", self.logits_encoding.bind(self.num_classes))
        object.__setattr__(
            self, "features_encoding", self.features_encoding.bind(self.feature_channels)
        )

    @property
    def num_records(self) -> int:
        """N, views of all images."""
        return self.num_images * self.num_views

    @property
    def num_units(self) -> int:
        """Units of work, the last of which may be short."""
        return -(-self.num_records // self.unit_size)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the identity."""
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()[:16]

    def unit_records(self, unit: int) -> range:
        """Return the records of one unit."""
        if not 0 <= unit < self.num_units:
            raise IndexError(f"unit {unit} is not in 0..{self.num_units - 1}")
        first = unit * self.unit_size
        return range(first, min(first + self.unit_size, self.num_records))

    def to_dict(self) -> dict[str, Any]:
        """Describe the spec in JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("logits_encoding", "features_encoding"):
            values[name] = values[name].to_dict()
        if self.targets == TARGETS:
            del values["targets"]  # stores from before there was a choice say nothing of it
        described: dict[str, Any] = json.loads(canonical_json(values))
        return described

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        given = dict(values)
        for name in ("logits_encoding", "features_encoding"):
            given[name] = encoding_from_dict(given[name])
        given["class_names"] = tuple(given["class_names"])
        given["targets"] = tuple(given.get("targets", TARGETS))
        return cls(**given)


VIEW_TABLE = {
    "key": "str",
    "view_index": "int32",
    "source_height": "int32",
    "source_width": "int32",
    "scale": "float64",
    "flip": "bool",
    "top": "int32",
    "left": "int32",
    "crop_height": "int32",
    "crop_width": "int32",
}
"""The columns that replay a view, one array each."""


def array_specs(spec: StoreSpec) -> dict[str, ArraySpec]:
    """List every array of a store, by name."""
    by_target = target_arrays(spec)
    records: RecordArrays = {
        "image": ((3, spec.height, spec.width), "uint8"),
        "labels": ((spec.height, spec.width), "uint8"),
        **{name: array for target in spec.targets for name, array in by_target[target].items()},
        **{name: ((), dtype) for name, dtype in VIEW_TABLE.items()},
    }
    return {name: _array_spec(spec, name, *record) for name, record in records.items()}


def target_arrays(spec: StoreSpec) -> dict[str, RecordArrays]:
    """List the arrays of every target, whether the store holds it or not."""
    k, d, p = spec.num_classes, spec.feature_channels, spec.sample_slots
    grid = (spec.feature_height, spec.feature_width)
    return {
        "logits": _encoded("logits", spec.logits_encoding.array_specs(k, *grid)),
        "features": _encoded("features", spec.features_encoding.array_specs(d, *grid)),
        "auxiliary_attention": {"auxiliary_attention": (grid, "float16")},
        "regions": {
            "region_center": ((k, d), "float16"),
            "region_pixels": ((k,), "int32"),
            "pixel_sample": ((p, d), "float16"),
            "pixel_sample_class": ((p,), "uint8"),
        },
    }


def map_arrays(spec: StoreSpec, name: str) -> dict[str, str]:
    """Return suffix -> array name for a map stored by an encoding ("logits" or "features")."""
    encoding = {"logits": spec.logits_encoding, "features": spec.features_encoding}[name]
    return {suffix: name + suffix for suffix in encoding.array_specs(1, 1, 1)}


def canonical_json(values: Any) -> str:
    """Write values so that equal values give equal text, whatever the order of their keys."""
    return json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def diff_identity(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Compare two nested identities field by field.

    Returns:
        One line a difference: "teacher.sha256: expected 'a', found 'b'".
    """
    left, right = _flat(expected), _flat(found)
    absent = object()
    return [
        f"{name}: expected {_shown(left, name)}, found {_shown(right, name)}"
        for name in sorted(left | right)
        if left.get(name, absent) != right.get(name, absent)
    ]


def _encoded(name: str, arrays: RecordArrays) -> RecordArrays:
    return {name + suffix: record for suffix, record in arrays.items()}


def _array_spec(spec: StoreSpec, name: str, record_shape: tuple[int, ...], dtype: str) -> ArraySpec:
    is_map = name.startswith(("image", "labels", "logits", "features", "auxiliary"))
    return ArraySpec(
        name=name,
        shape=(spec.num_records, *record_shape),
        dtype=dtype,
        unit_size=spec.unit_size,
        # Maps are read record by record; everything else is small, and many small chunks are slow.
        sharded=is_map and len(record_shape) >= 2,
        axes=("record", *_axes(name, len(record_shape))),
    )


def _axes(name: str, num_axes: int) -> tuple[str, ...]:
    named = {
        "image": ("colour", "y", "x"),
        "labels": ("y", "x"),
        "region_center": ("class", "channel"),
        "region_pixels": ("class",),
        "pixel_sample": ("slot", "channel"),
        "pixel_sample_class": ("slot",),
    }
    by_rank = {0: (), 1: ("channel",), 2: ("feature_y", "feature_x")}
    leading = "class" if name.startswith("logits") else "channel"
    return named.get(name) or by_rank.get(num_axes, (leading, "feature_y", "feature_x"))


def _flat(values: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(values, Mapping):
        return {prefix: canonical_json(values)}
    parts = (_flat(value, f"{prefix}.{name}" if prefix else name) for name, value in values.items())
    return {name: text for part in parts for name, text in part.items()}


def _shown(values: Mapping[str, str], name: str) -> str:
    return values.get(name, "nothing")
