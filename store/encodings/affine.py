"""Integers times a scale, above the smallest value of the pixel: x = low + code * scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.encodings.base import Encoding, RecordArrays
from store.encodings.quantisation import quantisation_step, quantise, step_error


@dataclass(frozen=True)
class Uint8Affine(Encoding):
    """x = low[pixel] + code * scale[pixel], code in 0..255: for logits."""

    name: str = "uint8_affine"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        low = x.min(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            span = x.max(axis=1) - low
        scale = quantisation_step(self, span, 255)
        codes = quantise(x - low[:, None], scale[:, None], np.uint8)
        return {"": codes, "_scale": scale, "_low": low}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return arrays[""] * arrays["_scale"][:, None] + arrays["_low"][:, None]

    def max_error(self, x: np.ndarray) -> np.ndarray:
        span = x.max(axis=1, keepdims=True) - x.min(axis=1, keepdims=True)
        # The sum at the end rounds to the precision of the largest value, not of the step.
        rounding = np.abs(x).max(axis=1, keepdims=True) * np.float32(2.0**-22)
        error: np.ndarray = step_error(span, 255) + rounding
        return error

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {
            "": ((channels, height, width), "uint8"),
            "_scale": ((height, width), "float32"),
            "_low": ((height, width), "float32"),
        }
