"""Floating point numbers, as they are or rounded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.encodings.base import Encoding, RecordArrays, as_float32, refuse_beyond_float16


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
        refuse_beyond_float16(self, x)
        return {"": x.astype(np.float16)}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return as_float32(arrays[""])

    def max_error(self, x: np.ndarray) -> np.ndarray:
        error: np.ndarray = np.abs(x) * np.float32(2.0**-11) + np.float32(2.0**-25)
        return error

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {"": ((channels, height, width), "float16")}
