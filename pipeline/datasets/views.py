"""Views: one replayable geometry (scale, window, flip) for image, labels and padding alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from store.grid import nearest
from store.schema import VOID

if TYPE_CHECKING:
    from pipeline.config.params import Crop

MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of RGB in 0..1, the normalisation torchvision's and smp's weights expect."""
STD = (0.229, 0.224, 0.225)
"""ImageNet standard deviation of RGB in 0..1."""
PADDING_COLOUR = (124, 116, 104)
"""MEAN in 0..255, rounded: padding is (nearly) zero after normalisation."""


@dataclass(frozen=True)
class View:
    """One window of one image; the fields are the columns of the store's view table.

    The image is resized to `scaled_size`, the window of crop_height x crop_width at (top, left) is
    cut out of it (padded on the right and at the bottom where it reaches beyond), and last the
    window is mirrored if `flip`.
    """

    source_height: int
    source_width: int
    scale: float
    flip: bool
    top: int
    left: int
    crop_height: int
    crop_width: int

    @property
    def scaled_size(self) -> tuple[int, int]:
        """Return height and width of the whole image after scaling, each at least one pixel."""
        return _scaled(self.source_height, self.scale), _scaled(self.source_width, self.scale)

    @property
    def valid_size(self) -> tuple[int, int]:
        """Return height and width of the part of the window that lies on the image."""
        height, width = self.scaled_size
        return (
            max(0, min(height - self.top, self.crop_height)),
            max(0, min(width - self.left, self.crop_width)),
        )

    def image(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut this view out of an image, bilinearly, with padding in PADDING_COLOUR.

        Args:
            array: RGB 0..255, uint8 [source_height, source_width, 3].

        Returns:
            RGB 0..255, uint8 [3, crop_height, crop_width].
        """
        self._check(array, (self.source_height, self.source_width, 3))
        window = np.empty((self.crop_height, self.crop_width, 3), np.uint8)
        window[:] = PADDING_COLOUR
        height, width = self.valid_size
        if height and width:
            # Resizing the box alone gives the pixels of resizing all and cropping (up to rounding):
            # Pillow's filter reads beyond the box, and the box has the scale of the whole image.
            resized = Image.fromarray(array).resize(
                (width, height), Image.Resampling.BILINEAR, box=self._source_box(height, width)
            )
            window[:height, :width] = np.asarray(resized)
        return np.ascontiguousarray(self._mirror(window).transpose(2, 0, 1))

    def labels(self, array: NDArray[Any]) -> NDArray[Any]:  # any dtype
        """Cut this view out of labels [source_height, source_width]; the nearest pixel's label.

        Returns:
            Same dtype, [crop_height, crop_width], with VOID as padding.
        """
        self._check(array, (self.source_height, self.source_width))
        window = np.full((self.crop_height, self.crop_width), VOID, array.dtype)
        height, width = self.valid_size
        scaled_height, scaled_width = self.scaled_size
        rows = _centres(self.top, height, self.source_height, scaled_height)
        columns = _centres(self.left, width, self.source_width, scaled_width)
        window[:height, :width] = array[rows[:, None], columns[None, :]]
        return np.ascontiguousarray(self._mirror(window))

    def valid(self) -> NDArray[np.bool_]:
        """Return True on the image, False on padding: bool [crop_height, crop_width]."""
        window = np.zeros((self.crop_height, self.crop_width), np.bool_)
        height, width = self.valid_size
        window[:height, :width] = True
        return np.ascontiguousarray(self._mirror(window))

    def grid_valid(self, stride: int) -> NDArray[np.bool_]:
        """Return `valid` at the feature grid: bool [ceil(height / stride), ceil(width / stride)].

        Picked by `nearest`, as labels at the feature grid are: a labelled cell is never padding.
        """
        return nearest(self.valid(), -(-self.crop_height // stride), -(-self.crop_width // stride))

    def _source_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        scaled_height, scaled_width = self.scaled_size
        return (
            self.left * self.source_width / scaled_width,
            self.top * self.source_height / scaled_height,
            (self.left + width) * self.source_width / scaled_width,
            (self.top + height) * self.source_height / scaled_height,
        )

    def _mirror(self, window: NDArray[Any]) -> NDArray[Any]:  # any dtype
        return window[:, ::-1] if self.flip else window

    @staticmethod
    def _check(array: NDArray[Any], shape: tuple[int, ...]) -> None:  # any dtype
        if array.shape != shape:
            raise ValueError(f"view of another image: expected shape {shape}; found {array.shape}")


TABLE = tuple(field.name for field in fields(View))


def grid_valid(arrays: Mapping[str, np.ndarray], stride: int) -> np.ndarray:
    """Tell from the view table where some records lie on their images, bool [n, h, w]."""
    rows = zip(*(arrays[name] for name in TABLE), strict=True)
    return np.stack([View(*row).grid_valid(stride) for row in rows])


def draw_view(crop: Crop, seed: int, key: str, view_index: int, height: int, width: int) -> View:
    """Draw view number `view_index` of the image `key`, a pure function of its arguments.

    The scale is one of scale_min, scale_min + 0.1, ... <= scale_max; the window is uniform where
    the scaled image is larger than the crop, and at 0 where it is not; flip has its probability.

    Args:
        crop: ranges and size of the window.
        seed: seed of all views of one store.
        key: the sample's stable key; its sha256 chooses the random stream.
        view_index: which view of this image, 0-based.
        height: height of the image in pixels.
        width: width of the image in pixels.
    """
    digest = np.frombuffer(hashlib.sha256(key.encode()).digest(), ">u4")
    spawn_key = (*(int(word) for word in digest), view_index)
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=spawn_key))
    # The slack keeps scale_max itself on the grid where floats fall just short of it.
    steps = int((crop.scale_max - crop.scale_min) * 10 + 1e-6)
    scale = round(crop.scale_min + int(random.integers(steps + 1)) / 10, 6)
    flip = bool(random.random() < crop.flip_probability)
    top = int(random.integers(max(0, _scaled(height, scale) - crop.height) + 1))
    left = int(random.integers(max(0, _scaled(width, scale) - crop.width) + 1))
    return View(height, width, scale, flip, top, left, crop.height, crop.width)


def _scaled(source: int, scale: float) -> int:
    return max(1, round(source * scale))


def _centres(start: int, count: int, source: int, scaled: int) -> NDArray[np.int64]:
    """Find source indices under scaled pixels' centres: floor((i + 1/2) * source / scaled)."""
    return (2 * np.arange(start, start + count) + 1) * source // (2 * scaled)
