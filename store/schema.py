"""What a store holds: its identity, its sizes, and every array with its file boundary.

Record n = view_index * num_images + image_index. A unit is `unit_size` consecutive records (the
last one may be shorter): it is the unit of writing, of resume and of parallelism, and no file holds
records of two units.

Schema policy: SCHEMA_VERSION rises whenever an array changes its name, shape or meaning. A store of
a newer schema is refused; so is one of an older schema, unless a line here says how it is read:
version 1 did not store the stride, which was 8.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, get_origin

import numpy as np

from store.arrays import ARRAYS, AXES, TARGETS, ArrayRow, ArraySpec
from store.encodings.base import Encoding, RecordArrays
from store.encodings.registry import find_encoding
from store.errors import StoreMismatchError

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
_STRIDE_OF_VERSION_1 = 8
MAX_SIZE = 2**31 - 1
"""Of anything that is counted: the columns of a store and of a bank are int32."""
MAX_BASIS = 2**23
"""Characters of a basis: it lies in the metadata, which readers read whole."""
VOID = 255
"""The label of pixels that have none, and the class of an empty sample slot."""
NO_RECORD = -1
"""Stands for a record's number where a queue or a bank holds no embedding."""


@dataclass(frozen=True)
class StoreSpec:
    """Everything that is decided before the first record is written.

    Attributes:
        identity: Nested JSON values that decide the content (teacher, dataset, views, encodings,
            precision, schema version); hashed into the fingerprint.
        num_images, num_views: Images, and views of each.
        height, width: Size of a view's image and labels, in pixels.
        num_classes: K.
        feature_channels, feature_height, feature_width: D, h, w; with a basis r, h, w.
        stride: Pixels of a view along one cell of the feature grid: the teacher's output stride.
        sample_slots: P, pixel samples of one record.
        logits_encoding, features_encoding: How the two maps are stored.
        class_names: K names.
        unit_size: Records in a unit.
        targets: Those of TARGETS that are stored, in that order.
        provenance: Recorded but not hashed (library versions, device, threads).
        schema_version: Of READABLE_VERSIONS; a copy of an older store stays one.
        basis: Of the subspace that features, centers and samples are given in: B float32 [D,r],
            little-endian, row by row, in base64; "" where they are the teacher's own channels.
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
    stride: int
    sample_slots: int
    logits_encoding: Encoding
    features_encoding: Encoding
    class_names: tuple[str, ...]
    unit_size: int = 32
    targets: tuple[str, ...] = TARGETS
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    basis: str = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            kind: Any = get_origin(one.type) or one.type
            if not isinstance(value, kind):
                raise StoreMismatchError(
                    "wrong type", where=one.name, expected=one.type, found=repr(value)
                )
            if kind is int and not 1 <= value <= MAX_SIZE:
                raise StoreMismatchError(
                    "size out of range", where=one.name, expected=f"1 to {MAX_SIZE}", found=value
                )
        names = [name for name in self.class_names if isinstance(name, str)]
        if len(names) != self.num_classes or len(names) != len(self.class_names):
            raise StoreMismatchError(
                "wrong number of class names",
                where="class_names",
                expected=self.num_classes,
                found=self.class_names,
            )
        grid = (-(-self.height // self.stride), -(-self.width // self.stride))
        if (self.feature_height, self.feature_width) != grid:
            raise StoreMismatchError(
                "feature grid does not fit the stride",
                where="feature_height, feature_width",
                expected=f"{grid}, views of {self.height} x {self.width} at stride {self.stride}",
                found=(self.feature_height, self.feature_width),
            )
        if self.targets != tuple(name for name in TARGETS if name in self.targets):
            raise StoreMismatchError(
                "no such targets",
                where="targets",
                expected=f"some of {TARGETS}",
                found=self.targets,
            )
        if len(self.basis) > MAX_BASIS:
            raise StoreMismatchError(
                "basis is too large",
                where="basis",
                expected=f"at most {MAX_BASIS} characters",
                found=len(self.basis),
                hint="store fewer channels (store.encodings.features.rank)",
            )
        if self.basis and self.basis_matrix.shape[0] < self.feature_channels:
            raise StoreMismatchError(
                "basis does not fit the features",
                where="basis",
                expected=f"D x {self.feature_channels} values, D no less",
                found=self.basis_matrix.shape,
            )
        object.__setattr__(self, "logits_encoding", self.logits_encoding.bind(self.num_classes))
        object.__setattr__(
            self, "features_encoding", self.features_encoding.bind(self.feature_channels)
        )

    @property
    def basis_matrix(self) -> np.ndarray:
        """Return B [D,r], of orthonormal columns: x ~ B c for the stored coordinates c of x."""
        values = np.frombuffer(base64.b64decode(self.basis), "<f4")
        return values.reshape(-1, self.feature_channels)

    @property
    def teacher_channels(self) -> int:
        """Return the channels of the teacher's own features: D, whatever they are stored as."""
        return self.basis_matrix.shape[0] if self.basis else self.feature_channels

    @property
    def num_records(self) -> int:
        """Return N, views of all images."""
        return self.num_images * self.num_views

    @property
    def num_units(self) -> int:
        """Return the number of units of work, the last of which may be short."""
        return -(-self.num_records // self.unit_size)

    @property
    def fingerprint(self) -> str:
        """Return sixteen hexadecimal digits of the SHA-256 of the identity."""
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
        if values.pop("schema_version") == 1:
            del values["stride"]
        # Stores from before there was a choice say nothing of it.
        if self.targets == TARGETS:
            del values["targets"]
        if not self.basis:
            del values["basis"]
        described: dict[str, Any] = json.loads(canonical_json(values))
        return described

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], schema_version: int = SCHEMA_VERSION) -> Self:
        """Read what `to_dict` wrote under a schema version.

        Raises:
            StoreMismatchError: A size is out of range, or an encoding unknown.
            ValueError: It is not what `to_dict` wrote.
        """
        given = {**values, "schema_version": schema_version}
        if schema_version == 1:
            given["stride"] = _STRIDE_OF_VERSION_1
        for name in ("logits_encoding", "features_encoding"):
            given[name] = find_encoding(given[name]["name"])
        given["class_names"] = tuple(given["class_names"])
        given["targets"] = tuple(given.get("targets", TARGETS))
        spec = cls(**given)
        if canonical_json(spec.to_dict()) != canonical_json(values):
            raise ValueError("an encoding or a list is not as it was written")
        return spec


def array_specs(spec: StoreSpec) -> dict[str, ArraySpec]:
    """List every array of a store, by name."""
    return {
        array.name: array
        for one in ARRAYS
        if one.target is None or one.target in spec.targets
        for array in _stored_arrays(spec, one).values()
    }


def target_arrays(spec: StoreSpec) -> dict[str, list[str]]:
    """Name the arrays of every target, whether the store holds it or not."""
    return {
        target: [
            array.name
            for one in ARRAYS
            if one.target == target
            for array in _stored_arrays(spec, one).values()
        ]
        for target in TARGETS
    }


def map_arrays(spec: StoreSpec, name: str) -> dict[str, str]:
    """Return suffix -> array name of what holds `name`: "" alone, unless an encoding stores it."""
    one = next(one for one in ARRAYS if one.name == name)
    return {suffix: array.name for suffix, array in _stored_arrays(spec, one).items()}


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


def _stored_arrays(spec: StoreSpec, one: ArrayRow) -> dict[str, ArraySpec]:
    """Return suffix -> array for one line of the table."""
    sizes = [_size(spec, axis) for axis in one.axes]
    records: RecordArrays = {"": (tuple(sizes), one.dtype or "")}
    if one.encoding:
        records = getattr(spec, one.encoding).array_specs(*sizes)
    return {
        suffix: ArraySpec(
            name=one.name + suffix,
            shape=(spec.num_records, *shape),
            dtype=dtype,
            unit_size=spec.unit_size,
            axes=("record", *_record_axes(one, len(shape))),
        )
        for suffix, (shape, dtype) in records.items()
    }


def _size(spec: StoreSpec, axis: str) -> int:
    size = AXES[axis].size
    return size if isinstance(size, int) else int(getattr(spec, size))


def _record_axes(one: ArrayRow, num_axes: int) -> tuple[str, ...]:
    """Return the axes of an encoding's array: the map's own, one value a pixel, or a channel."""
    if one.encoding and num_axes == 1:
        return ("channel",)
    return one.axes[len(one.axes) - num_axes :]


def _flat(values: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(values, Mapping):
        return {prefix: canonical_json(values)}
    parts = (_flat(value, f"{prefix}.{name}" if prefix else name) for name, value in values.items())
    return {name: text for part in parts for name, text in part.items()}


def _shown(values: Mapping[str, str], name: str) -> str:
    return f"{values.get(name, 'nothing'):.200}"
