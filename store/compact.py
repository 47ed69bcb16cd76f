"""Encodings that give more up: four bits a feature, eight bits a logit, a few logits a pixel."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

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

_HALF_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Uint4PerChannel(Encoding):
    """x = code * scale[channel of the view], code in 0..15, two channels in a byte.

    Channel c is the low half of byte c for c < ceil(C/2), and the high half of byte c - ceil(C/2)
    for the others. A research option: four bits cost about 6e-4 nats of similarity.
    """

    name: str = "uint4_per_channel"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        refuse_unless_fit(self, ~(x >= 0), x, "values >= 0", "int8_per_channel")
        scale = quantisation_step(self, x.max(axis=(2, 3)), 15)
        codes = quantise(x, scale[:, :, None, None], np.uint8)
        half = -(-x.shape[1] // 2)
        packed = codes[:, :half].copy()
        packed[:, : x.shape[1] - half] |= codes[:, half:] << 4
        return {"": packed, "_scale": scale}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        packed, scale = arrays[""], arrays["_scale"][:, :, None, None]
        half = packed.shape[1]
        low, high = packed & 15, (packed >> 4)[:, : scale.shape[1] - half]
        maps = [low * scale[:, :half], high * scale[:, half:]]
        return _namespace(packed).concatenate(maps, 1)

    def max_error(self, x: np.ndarray) -> np.ndarray:
        return step_error(x.max(axis=(2, 3), keepdims=True), 15)

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {
            "": ((-(-channels // 2), height, width), "uint8"),
            "_scale": ((channels,), "float32"),
        }


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
        return step_error(span, 255) + rounding

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        return {
            "": ((channels, height, width), "uint8"),
            "_scale": ((height, width), "float32"),
            "_low": ((height, width), "float32"),
        }


@dataclass(frozen=True)
class TopK(Encoding):
    """The k largest logits of a pixel as float16, and one value that stands for all the others.

    The remainder is honest: the other classes share, evenly, exactly the probability they had, so
    softmax(decoded) keeps every stored class's probability. What is lost is how they shared it:

        KL(p || q) = sum over the rest of p_c log(p_c (K - k) / m),  m = their total probability,

    plus at most twice the rounding of the stored values.
    """

    name: str
    k: int
    channels: int = 0
    measure: ClassVar[Literal["absolute", "kl"]] = "kl"

    def bind(self, channels: int) -> Self:
        if channels <= self.k:
            raise StoreMismatchError(
                "too few classes for the encoding", self.name, f"more than {self.k}", channels
            )
        return replace(self, channels=channels)

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        expected = f"|x| <= {_HALF_LIMIT:g}"
        refuse_unless_fit(self, ~(np.abs(x) <= _HALF_LIMIT), x, expected, "float32")
        top = self._top(x)
        values = np.take_along_axis(x, top, axis=1).astype(np.float16)
        rest = _log_sum_exp(_without(x, top)) - np.log(x.shape[1] - self.k)
        return {
            "": values,
            "_class": top.astype(self._class_dtype(x.shape[1])),
            "_rest": rest.astype(np.float32),
        }

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        values, classes, rest = as_float32(arrays[""]), arrays["_class"], arrays["_rest"]
        maps = []
        for channel in range(self.channels):
            chosen = as_float32(classes == channel)
            maps.append((chosen * values).sum(axis=1) + (1 - chosen.sum(axis=1)) * rest)
        return _namespace(values).stack(maps, 1)

    def max_error(self, x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        others = _without(x, self._top(x))
        log_p = others - _log_sum_exp(x)[:, None]
        log_mass = (_log_sum_exp(others) - _log_sum_exp(x))[:, None]
        even = log_mass - np.log(x.shape[1] - self.k)
        kept = np.isfinite(log_p)
        kl = np.sum(np.exp(log_p) * np.where(kept, np.where(kept, log_p, 0) - even, 0), axis=1)
        rounding = 2 * np.abs(x).max(axis=1) * 2.0**-11 + 2.0**-20
        return (kl + rounding)[:, None]

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        grid = (self.k, height, width)
        return {
            "": (grid, "float16"),
            "_class": (grid, self._class_dtype(channels)),
            "_rest": ((height, width), "float32"),
        }

    def _top(self, x: np.ndarray) -> np.ndarray:
        """Return the classes of the k largest values, largest first, int [n,k,h,w]."""
        largest = np.argpartition(-x, self.k - 1, axis=1)[:, : self.k]
        order = np.argsort(-np.take_along_axis(x, largest, axis=1), axis=1, kind="stable")
        return np.take_along_axis(largest, order, axis=1)

    @staticmethod
    def _class_dtype(channels: int) -> str:
        return "uint8" if channels <= 256 else "int16"


def _without(x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    others = x.copy()
    np.put_along_axis(others, classes, -np.inf, axis=1)
    return others


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    peak = x.max(axis=1)
    return peak + np.log(np.exp(x - peak[:, None]).sum(axis=1))


def _namespace(x: Any) -> Any:
    """Return numpy, or torch, which need not be imported: whoever made the tensor has done that."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]
