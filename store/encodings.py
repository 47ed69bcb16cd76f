"""The encodings a store can be written with, by name.

Scales are float32, because float16 underflows for tiny features, and values are quantised with the
scale as stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from store.compact import TopK, Uint4PerChannel, Uint8Affine
from store.encoding import (
    Encoding,
    RecordArrays,
    as_float32,
    quantisation_step,
    quantise,
    refuse_unless_fit,
    step_error,
)
from store.errors import StoreMismatchError


@dataclass(frozen=True)
class Float32(Encoding):
    """The values themselves: lossless, for the test that offline equals online."""

    name: str = "float32"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"": np.asarray(x, np.float32)}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return arrays[""]

    def max_error(self, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(x)

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {"": ((channels, height, width), "float32")}


@dataclass(frozen=True)
class Float16(Encoding):
    """Half precision: 11 bits of significand, |x| up to 65504."""

    name: str = "float16"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        limit = float(np.finfo(np.float16).max)
        refuse_unless_fit(self, ~(np.abs(x) <= limit), x, f"|x| <= {limit:g}", "float32")
        return {"": x.astype(np.float16)}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return as_float32(arrays[""])

    def max_error(self, x: np.ndarray) -> np.ndarray:
        return np.abs(x) * np.float32(2.0**-11) + np.float32(2.0**-25)

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {"": ((channels, height, width), "float16")}


@dataclass(frozen=True)
class Uint8PerPixel(Encoding):
    """x = code * scale[pixel], code in 0..255: for features after a ReLU.

    The scale cancels when a pixel's features are L2-normalised.
    """

    name: str = "uint8_per_pixel"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        refuse_unless_fit(self, ~(x >= 0), x, "values >= 0", "int8_per_channel")
        scale = quantisation_step(self, x.max(axis=1), 255)
        return {"": quantise(x, scale[:, None], np.uint8), "_scale": scale}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return arrays[""] * arrays["_scale"][:, None]

    def max_error(self, x: np.ndarray) -> np.ndarray:
        return step_error(x.max(axis=1, keepdims=True), 255)

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {
            "": ((channels, height, width), "uint8"),
            "_scale": ((height, width), "float32"),
        }


@dataclass(frozen=True)
class Uint8PerChannel(Encoding):
    """x = code * scale[channel of the view], code in 0..255."""

    name: str = "uint8_per_channel"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        refuse_unless_fit(self, ~(x >= 0), x, "values >= 0", "int8_per_channel")
        scale = quantisation_step(self, x.max(axis=(2, 3)), 255)
        return {"": quantise(x, scale[:, :, None, None], np.uint8), "_scale": scale}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return arrays[""] * arrays["_scale"][:, :, None, None]

    def max_error(self, x: np.ndarray) -> np.ndarray:
        return step_error(x.max(axis=(2, 3), keepdims=True), 255)

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {"": ((channels, height, width), "uint8"), "_scale": ((channels,), "float32")}


@dataclass(frozen=True)
class Int8PerChannel(Encoding):
    """x = code * scale[channel of the view], code in -127..127: for signed features."""

    name: str = "int8_per_channel"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        scale = quantisation_step(self, np.abs(x).max(axis=(2, 3)), 127)
        return {"": quantise(x, scale[:, :, None, None], np.int8), "_scale": scale}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return arrays[""] * arrays["_scale"][:, :, None, None]

    def max_error(self, x: np.ndarray) -> np.ndarray:
        return step_error(np.abs(x).max(axis=(2, 3), keepdims=True), 127)

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {"": ((channels, height, width), "int8"), "_scale": ((channels,), "float32")}


ENCODINGS: dict[str, Encoding] = {
    encoding.name: encoding
    for encoding in (
        Float32(),
        Float16(),
        Uint8PerPixel(),
        Uint8PerChannel(),
        Int8PerChannel(),
        Uint4PerChannel(),
        Uint8Affine(),
        *(TopK(f"top_{k}", k) for k in (3, 5, 8)),
    )
}


def find_encoding(name: str) -> Encoding:
    """Look an encoding up by name.

    Raises:
        StoreMismatchError: The name is unknown.
    """
    if name not in ENCODINGS:
        raise StoreMismatchError(
            "unknown encoding",
            "store.encodings of params.yaml",
            f"one of {', '.join(ENCODINGS)}",
            name,
            "choose one of these",
        )
    return ENCODINGS[name]


def encoding_from_dict(values: Mapping[str, Any]) -> Encoding:
    """Read what `Encoding.to_dict` wrote.

    Raises:
        StoreMismatchError: The encoding is unknown.
    """
    return replace(find_encoding(values["name"]), **values)
