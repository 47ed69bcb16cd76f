"""A few logits of a pixel, and what they leave."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from store.encodings.base import (
    Encoding,
    RecordArrays,
    as_float32,
    namespace,
    refuse_beyond_float16,
)
from store.errors import StoreMismatchError


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
                "too few classes for the encoding",
                where=self.name,
                expected=f"more than {self.k}",
                found=channels,
            )
        return replace(self, channels=channels)

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        refuse_beyond_float16(self, x)
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
        return namespace(values).stack(maps, 1)

    def max_error(self, x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        others = _without(x, self._top(x))
        log_p = others - _log_sum_exp(x)[:, None]
        log_mass = (_log_sum_exp(others) - _log_sum_exp(x))[:, None]
        even = log_mass - np.log(x.shape[1] - self.k)
        kept = np.isfinite(log_p)
        kl = np.sum(np.exp(log_p) * np.where(kept, np.where(kept, log_p, 0) - even, 0), axis=1)
        rounding = 2 * np.abs(x).max(axis=1) * 2.0**-11 + 2.0**-20
        bound: np.ndarray = (kl + rounding)[:, None]
        return bound

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
    total: np.ndarray = peak + np.log(np.exp(x - peak[:, None]).sum(axis=1))
    return total
