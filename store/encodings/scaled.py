"""Integers times one scale a pixel or a channel: x = code * scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from store.encodings.base import Encoding, RecordArrays, namespace, refuse_values
from store.encodings.quantisation import quantisation_step, quantise, step_error

_AXES = {"pixel": (1,), "channel": (2, 3)}
_EXPAND = {"pixel": np.index_exp[:, None], "channel": np.index_exp[:, :, None, None]}


@dataclass(frozen=True)
class Scaled(Encoding):
    """x = code * scale, with a scale for every pixel, or for every channel of a view.

    Attributes:
        dtype: Of the codes; an unsigned one refuses negative values.
        levels: The largest code.
        per: What shares a scale.
    """

    dtype: ClassVar[type[np.integer]] = np.uint8
    levels: ClassVar[int] = 255
    per: ClassVar[Literal["pixel", "channel"]] = "channel"

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        if self._unsigned:
            refuse_values(self, ~(x >= 0), x, "values >= 0", f"int8_per_{self.per}")
        scale = quantisation_step(self, self._peak(x), self.levels)
        return {"": quantise(x, scale[_EXPAND[self.per]], self.dtype), "_scale": scale}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        return arrays[""] * arrays["_scale"][_EXPAND[self.per]]

    def max_error(self, x: np.ndarray) -> np.ndarray:
        return step_error(self._peak(x)[_EXPAND[self.per]], self.levels)

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        scale_shape = (height, width) if self.per == "pixel" else (channels,)
        return {
            "": ((channels, height, width), np.dtype(self.dtype).name),
            "_scale": (scale_shape, "float32"),
        }

    @property
    def _unsigned(self) -> bool:
        return issubclass(self.dtype, np.unsignedinteger)

    def _peak(self, x: np.ndarray) -> np.ndarray:
        peak: np.ndarray = (x if self._unsigned else np.abs(x)).max(axis=_AXES[self.per])
        return peak


@dataclass(frozen=True)
class Uint8PerPixel(Scaled):
    """One scale a pixel, code in 0..255: for features after a ReLU.

    The scale cancels when a pixel's features are L2-normalised.
    """

    name: str = "uint8_per_pixel"
    per = "pixel"


@dataclass(frozen=True)
class Int8PerPixel(Scaled):
    """One scale a pixel, code in -127..127: for signed features; the scale cancels, too."""

    name: str = "int8_per_pixel"
    dtype = np.int8
    levels = 127
    per = "pixel"


@dataclass(frozen=True)
class Uint8PerChannel(Scaled):
    """One scale a channel of a view, code in 0..255."""

    name: str = "uint8_per_channel"


@dataclass(frozen=True)
class Int8PerChannel(Scaled):
    """One scale a channel of a view, code in -127..127: for signed features."""

    name: str = "int8_per_channel"
    dtype = np.int8
    levels = 127


@dataclass(frozen=True)
class Uint4PerChannel(Scaled):
    """One scale a channel of a view, code in 0..15, two channels in a byte.

    Channel c is the low half of byte c for c < ceil(C/2), and the high half of byte c - ceil(C/2)
    for the others. A research option: four bits cost about 6e-4 nats of similarity.
    """

    name: str = "uint4_per_channel"
    levels = 15

    def encode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        encoded = super().encode(x)
        codes, half = encoded[""], -(-x.shape[1] // 2)
        packed = codes[:, :half].copy()
        packed[:, : x.shape[1] - half] |= codes[:, half:] << 4
        return encoded | {"": packed}

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        packed, num_channels = arrays[""], arrays["_scale"].shape[1]
        halves = [packed & 15, (packed >> 4)[:, : num_channels - packed.shape[1]]]
        codes = namespace(packed).concatenate(halves, 1)
        return super().decode({"": codes, "_scale": arrays["_scale"]})

    def array_specs(self, channels: int, height: int, width: int) -> RecordArrays:
        packed = ((-(-channels // 2), height, width), "uint8")
        return super().array_specs(channels, height, width) | {"": packed}
