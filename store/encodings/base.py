"""What every encoding of teacher maps is."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from store.errors import StoreMismatchError

RecordArrays = dict[str, tuple[tuple[int, ...], str]]
"""Suffix -> (shape of one record, dtype)."""


@dataclass(frozen=True)
class Encoding(ABC):
    """One lossy representation of maps float32 [n,C,h,w].

    Arrays are named by suffix: "" is the main array, "_scale" and the like stand beside it.
    `encode` runs on numpy while a store is written; `decode` is written in operators that numpy
    arrays and torch tensors share, so a trainer decodes on its own device (hence its Any: arrays
    of either kind, and torch is not imported here).

    Attributes:
        name: Under which `store.encodings.registry.ENCODINGS` lists it.
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


def as_float32(x: Any) -> Any:
    """Convert a numpy array or a torch tensor to float32."""
    return x.astype(np.float32) if isinstance(x, np.ndarray) else x.float()


def namespace(x: Any) -> Any:
    """Return numpy, or torch, which need not be imported: whoever made the tensor has done that."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]


def refuse_values(
    encoding: Encoding, bad: np.ndarray, x: np.ndarray, expected: str, instead: str | None
) -> None:
    """Raise StoreMismatchError if any value is bad, naming another encoding that would do."""
    if bad.any():
        raise StoreMismatchError(
            "values do not fit the encoding",
            where=encoding.name,
            expected=expected,
            found=f"{int(bad.sum())} others, the first {x[bad][0].item()!r}",
            hint=f"choose the encoding {instead}" if instead else "look at the teacher's output",
        )


def refuse_beyond_float16(encoding: Encoding, x: np.ndarray) -> None:
    """Raise StoreMismatchError if a value is not finite as float16."""
    limit = float(np.finfo(np.float16).max)
    refuse_values(encoding, ~(np.abs(x) <= limit), x, f"|x| <= {limit:g}", "float32")
