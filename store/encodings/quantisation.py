"""Rounding to multiples of a stored scale, as several families do it.

Scales are float32, because float16 underflows for tiny features, and values are quantised with the
scale as stored.
"""

import numpy as np

from store.encodings.base import Encoding, refuse_values

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
_ROUNDING = 2.0**-14
"""Slack, in steps, for the float32 division and product around a rounding to 255 steps."""


def quantisation_step(encoding: Encoding, peak: np.ndarray, levels: int) -> np.ndarray:
    """Return the quantisation step float32; one too small to be exact becomes 0 (all codes 0)."""
    scale = (peak / np.float32(levels)).astype(np.float32)
    refuse_values(encoding, ~np.isfinite(scale), peak, "finite values", None)
    return np.where(scale < _SMALLEST_NORMAL, np.float32(0), scale)


def quantise(x: np.ndarray, scale: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """Round x to multiples of a scale that broadcasts to it."""
    return np.rint(x / np.where(scale > 0, scale, np.float32(1))).astype(dtype)


def step_error(peak: np.ndarray, levels: int) -> np.ndarray:
    """Bound the error of rounding values up to `peak` to so many steps: half a step, and slack."""
    step = (peak / np.float32(levels)).astype(np.float32)
    return np.where(step < _SMALLEST_NORMAL, peak, step * np.float32(0.5 + _ROUNDING))
