"""A pinhole camera over a street, and a renderer that paints image and labels by the same calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from numpy.random import Generator
from PIL import Image, ImageDraw

SKY, ROAD, SIDEWALK, BUILDING, VEGETATION, CAR, PERSON, POLE = range(8)

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking along z; lengths in pixels but `eye` (metres above the ground)."""

    horizon: float
    vanishing: float
    focal: float
    eye: float
    bend: float

    def point(self, x: float, y: float, z: float) -> Point:
        """Project a world point; the bend moves far things sideways, as on a curved street."""
        column = self.vanishing + self.focal * (x / z + self.bend * z)
        return column, self.horizon + self.focal * (self.eye - y) / z


class Renderer:
    """An RGB image and its label ids, painted together."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.image = Image.new("RGB", (width, height))
        self.ids = Image.new("L", (width, height), SKY)
        self.shade = Image.new("L", (width, height), 255)
        self._image = ImageDraw.Draw(self.image)
        self._ids = ImageDraw.Draw(self.ids)
        self._shade = ImageDraw.Draw(self.shade)

    def polygon(self, points: Sequence[Point], colour: Colour, label: int) -> None:
        """Fill a polygon."""
        self._image.polygon(points, colour)
        self._ids.polygon(points, label)
        self._shade.polygon(points, 255)

    def box(self, a: Point, b: Point, colour: Colour, label: int) -> None:
        """Fill an upright rectangle between two opposite corners."""
        corners = _ordered(a, b)
        self._image.rectangle(corners, colour)
        self._ids.rectangle(corners, label)
        self._shade.rectangle(corners, 255)

    def ellipse(self, a: Point, b: Point, colour: Colour, label: int) -> None:
        """Fill the ellipse inscribed in a rectangle."""
        corners = _ordered(a, b)
        self._image.ellipse(corners, colour)
        self._ids.ellipse(corners, label)
        self._shade.ellipse(corners, 255)

    def shadow(self, points: Sequence[Point], light: int) -> None:
        """Darken what is already painted inside a polygon to light/255 of its light."""
        self._shade.polygon(points, light)


def _ordered(a: Point, b: Point) -> tuple[float, float, float, float]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])


def pick(random: Generator, colours: Sequence[Colour], spread: float = 10) -> Colour:
    """Draw one of the colours, a little off."""
    return vary(random, colours[int(random.integers(len(colours)))], spread)


def vary(random: Generator, colour: Colour, spread: float) -> Colour:
    """Move a colour as a whole (brightness) and by channel (hue)."""
    moved = [channel + 0.5 * spread * random.normal() for channel in colour]
    bright = spread * random.normal()
    return clip(channel + bright for channel in moved)


def times(colour: Colour, factor: float) -> Colour:
    """Return a colour under `factor` of the light."""
    return clip(channel * factor for channel in colour)


def clip(channels: Iterable[float]) -> Colour:
    """Round to 0..255."""
    red, green, blue = (max(0, min(255, round(channel))) for channel in channels)
    return red, green, blue
