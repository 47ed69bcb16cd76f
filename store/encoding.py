"""What every encoding of teacher maps is, and the quantisation that several of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from store.errors import StoreMismatchError

RecordArrays = dict[str, tuple[tuple[int, ...], str]]
"""Suffix -> (shape of one record, dtype)."""

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
_ROUNDING = 2.0**-14
"""Slack, in steps, for the float32 division and product around a rounding to 255 steps."""


@dataclass(frozen=True)
class Encoding(ABC):
    """One lossy representation of maps float32 [n,C,h,w].

    Arrays are named by suffix: "" is the main array, "_scale" and the like stand beside it.
    `encode` runs on numpy while a store is written; `decode` is written in operators that numpy
    arrays and torch tensors share, so a trainer decodes on its own device.

    Attributes:
        name: Under which `store.encodings.ENCODINGS` lists it.
        measure: What `max_error` bounds: the absolute error of every value ("absolute"), or the
            divergence KL(softmax(x) || softmax(decoded)) over C of every pixel, in nats ("kl").
    """

    name: str
    measure: ClassVar[Literal["absolute", "kl"]] = "absolute"

    @abstractmethod
    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Encode x float32 [n,C,h,w] into arrays by suffix."""

    @abstractmethod
    def decode(self, arrays: Mapping[str, Any]) -> Any:
        """Decode arrays by suffix (numpy or torch, leading axis n) into float32 [n,C,h,w]."""

    @abstractmethod
    def max_error(self, x: np.ndarray) -> np.ndarray:
        """Bound the error of `decode(encode(x))`, broadcastable to x (for "kl": [n,1,h,w])."""

    @abstractmethod
    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        """Name the arrays of one record, with shape and dtype."""

    def bind(self, channels: int) -> Self:
        """Return this encoding for maps of so many channels (most do not depend on it)."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Describe the encoding in JSON values."""
        return asdict(self)


def quantisation_step(encoding: Encoding, peak: np.ndarray, levels: int) -> np.ndarray:
    """Return the quantisation step float32; one too small to be exact becomes 0 (all codes 0)."""
    scale = (peak / np.float32(levels)).astype(np.float32)
    refuse_unless_fit(encoding, ~np.isfinite(scale), peak, "finite values", None)
    return np.where(scale < _SMALLEST_NORMAL, np.float32(0), scale)


def quantise(x: np.ndarray, scale: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """Round x to multiples of a scale that broadcasts to it."""
    return np.rint(x / np.where(scale > 0, scale, np.float32(1))).astype(dtype)


def step_error(peak: np.ndarray, levels: int) -> np.ndarray:
    """Bound the error of rounding values up to `peak` to so many steps: half a step, and slack."""
    step = (peak / np.float32(levels)).astype(np.float32)
    return np.where(step < _SMALLEST_NORMAL, peak, step * np.float32(0.5 + _ROUNDING))


def as_float32(x: Any) -> Any:
    """Convert a numpy array or a torch tensor."""
    return x.astype(np.float32) if isinstance(x, np.ndarray) else x.float()


def refuse_unless_fit(
    encoding: Encoding, bad: np.ndarray, x: np.ndarray, expected: str, instead: str | None
) -> None:
    """Raise StoreMismatchError if any value is bad, naming another encoding that would do."""
    if bad.any():
        raise StoreMismatchError(
            "values do not fit the encoding",
            where=encoding.name,
            expected=expected,
            found=f"{int(bad.sum())} others, the first {x[bad][0]!r}",
            remedy=f"choose the encoding {instead}" if instead else "look at the teacher's output",
        )
