"""From a painted scene to a photograph: texture, light, haze, colour cast, blur, noise."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.datasets.scenes.renderer import Camera, Renderer
from store.schema import VOID

OVERSAMPLING = 2
"""How many painted pixels make one of the image, along each side."""
TEXTURE = np.zeros((256, 3), np.float32)
"""Contrast (grey levels) of fine, middling and coarse texture, by label id."""
TEXTURE[:8] = [
    (1, 2, 4),  # sky
    (4, 3, 4),  # road
    (5, 4, 4),  # sidewalk
    (4, 5, 4),  # building
    (12, 10, 6),  # vegetation
    (2, 2, 3),  # car
    (3, 3, 2),  # person
    (3, 2, 2),  # pole
]
TEXTURE[VOID] = (2, 3, 8)


def expose(
    random: Generator, renderer: Renderer, camera: Camera
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Light and photograph a painted scene.

    Returns:
        RGB 0..255, uint8 [H, W, 3], and labels, uint8 [H, W], both OVERSAMPLING times smaller than
        what was painted: the image is averaged, each label is that of one painted pixel.
    """
    ids = np.asarray(renderer.ids)
    colour = np.asarray(renderer.image).astype(np.float32)
    colour += _texture(random, ids)[..., None]
    colour *= _illumination(random, renderer)[..., None]
    _haze(random, colour, ids, camera)
    colour *= (random.uniform(0.85, 1.1) * random.normal(1, 0.02, 3)).astype(np.float32)

    image = Image.fromarray(_to_bytes(colour)).reduce(OVERSAMPLING)
    if random.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0.3, 0.8))))
    pixels = np.asarray(image).astype(np.float32)
    pixels += random.standard_normal(pixels.shape, np.float32) * np.float32(random.uniform(1, 2.5))
    return _to_bytes(pixels), np.ascontiguousarray(ids[::OVERSAMPLING, ::OVERSAMPLING])


def _texture(random: Generator, ids: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Draw noise of three grains, in the strength of what is painted: float32 like ids."""
    contrast = TEXTURE[ids]
    fine = random.standard_normal(ids.shape, np.float32) * contrast[..., 0]
    return fine + sum(
        _grain(random, ids.shape, size) * contrast[..., level] for level, size in ((1, 4), (2, 20))
    )


def _grain(random: Generator, shape: tuple[int, ...], size: int) -> NDArray[np.float32]:
    """Draw smooth noise, about one hill in size x size pixels, unit contrast."""
    coarse = random.standard_normal(
        (-(-shape[0] // size) + 1, -(-shape[1] // size) + 1), np.float32
    )
    smooth = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(smooth)


def _illumination(random: Generator, renderer: Renderer) -> NDArray[np.float32]:
    """Draw shadows with soft rims times a gradient across the image."""
    soft = renderer.shade.filter(ImageFilter.BoxBlur(renderer.height / 100))
    across = np.linspace(-0.5, 0.5, renderer.width, dtype=np.float32)
    down = np.linspace(-0.5, 0.5, renderer.height, dtype=np.float32)
    slope_across, slope_down = (np.float32(random.normal(0, 0.08)) for _ in range(2))
    gradient = 1 + slope_across * across[None, :] + slope_down * down[:, None]
    return np.asarray(soft).astype(np.float32) / np.float32(255) * gradient


def _haze(
    random: Generator, colour: NDArray[np.float32], ids: NDArray[np.uint8], camera: Camera
) -> None:
    """Pale what lies near the horizon, in some images and in place."""
    if random.random() >= 0.25:
        return
    rows = np.arange(len(ids), dtype=np.float32)
    far = np.clip(1 - np.abs(rows - np.float32(camera.horizon)) / (0.35 * len(ids)), 0, 1)
    weight = (np.float32(random.uniform(0.15, 0.45)) * far)[:, None, None]
    air = np.array(random.uniform(170, 215) + random.normal(0, 6, 3), np.float32)
    colour += weight * (air - colour)


def _to_bytes(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(array).clip(0, 255).astype(np.uint8)
