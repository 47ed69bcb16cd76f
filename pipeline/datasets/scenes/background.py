"""What a street stands on and under: sky, far backdrop, road, sidewalks, and the bonnet below."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from pipeline.datasets.scenes.objects import FACADES, GREENS
from pipeline.datasets.scenes.renderer import (
    BUILDING,
    ROAD,
    SIDEWALK,
    SKY,
    VEGETATION,
    Camera,
    Colour,
    Renderer,
    clip,
    pick,
    times,
    vary,
)
from store.schema import VOID

GREYS: tuple[Colour, ...] = ((78, 78, 84), (92, 92, 98), (102, 102, 104), (84, 88, 96))
PAVINGS: tuple[Colour, ...] = ((186, 178, 168), (196, 184, 170), (204, 192, 176), (178, 174, 170))
SKIES: tuple[tuple[Colour, Colour], ...] = (  # zenith, horizon
    ((96, 142, 204), (190, 208, 226)),
    ((150, 158, 168), (196, 198, 200)),
    ((96, 116, 170), (222, 196, 180)),
    ((176, 186, 196), (216, 216, 214)),
)
FAR = 120.0
"""Metres to where the ground ends in the haze."""


def sky(random: Generator, renderer: Renderer, camera: Camera) -> None:
    """Paint a gradient from zenith to horizon, and clouds."""
    zenith, rim = (vary(random, colour, 8) for colour in SKIES[int(random.integers(len(SKIES)))])
    bands = 12
    for band in range(bands):
        low, high = (camera.horizon * 1.1 * (band + step) / bands for step in (0, 1))
        part = band / (bands - 1)
        colour = clip(a + (b - a) * part for a, b in zip(zenith, rim, strict=True))
        renderer.box((0, low), (renderer.width, high), colour, SKY)
    for _ in range(int(random.integers(0, 5))):
        x, y = random.uniform(0, renderer.width), random.uniform(0, camera.horizon * 0.7)
        cloud = clip(channel + random.uniform(5, 30) for channel in rim)
        for _ in range(4):
            cx, cy = (
                x + renderer.width * random.normal(0, 0.05),
                y + renderer.height * random.normal(0, 0.012),
            )
            rx, ry = (
                renderer.width * random.uniform(0.02, 0.08),
                renderer.height * random.uniform(0.015, 0.04),
            )
            renderer.ellipse((cx - rx, cy - ry), (cx + rx, cy + ry), cloud, SKY)


def backdrop(random: Generator, renderer: Renderer, camera: Camera) -> None:
    """Paint far houses and woods along the horizon, paler than near ones."""
    x = 0.0
    while x < renderer.width:
        width = renderer.width * random.uniform(0.04, 0.14)
        top = camera.horizon - renderer.height * random.uniform(0.01, 0.14)
        house = random.random() < 0.5
        colour = clip(0.6 * channel + 66 for channel in pick(random, FACADES if house else GREENS))
        bottom = camera.horizon + renderer.height * 0.04
        if house:
            renderer.box((x, top), (x + width, bottom), colour, BUILDING)
        else:
            renderer.ellipse(
                (x - 0.2 * width, top), (x + 1.2 * width, 2 * bottom - top), colour, VEGETATION
            )
        x += width


def ground(
    random: Generator, renderer: Renderer, camera: Camera, sides: Mapping[int, float], sun: float
) -> dict[int, float]:
    """Paint grass or paving, the sidewalks, the road with its markings, and the shadows of houses.

    Args:
        random: the random generator.
        renderer: painted on.
        camera: sees the ground.
        sides: -1 and 1 -> x of the road's left and right edge, in metres.
        sun: -1 shines from the left, 1 from the right.

    Returns:
        -1 and 1 -> width of the sidewalk there, in metres.
    """
    asphalt, paving = pick(random, GREYS), pick(random, PAVINGS)
    walks = {side: float(random.uniform(2.2, 4.5)) for side in sides}
    for side, edge in sides.items():
        grass = random.random() < 0.55
        land = pick(random, GREENS) if grass else times(paving, 0.93)
        label = VEGETATION if grass else SIDEWALK
        _strip(renderer, camera, edge, edge + side * 90, land, label)
        _strip(renderer, camera, edge, edge + side * walks[side], paving, SIDEWALK)
    left, right = sides[-1], sides[1]
    _strip(renderer, camera, left, right, asphalt, ROAD)
    for side, edge in sides.items():
        _strip(renderer, camera, edge, edge + side * 0.22, times(paving, 1.16), SIDEWALK)
    _markings(random, renderer, camera, left, right)
    if random.random() < 0.6:
        lit = sides[1] if sun > 0 else sides[-1]
        reach = -np.sign(sun) * random.uniform(0.1, 0.7) * (right - left)
        beyond = lit + np.sign(sun) * 12
        renderer.shadow(
            _outline(camera, renderer, lit + reach, beyond), int(random.uniform(165, 215))
        )
    return walks


def bonnet(random: Generator, renderer: Renderer) -> None:
    """Paint the camera's own car at the lower edge of one image in four, without a label."""
    if random.random() < 0.25:
        middle = renderer.width * random.uniform(0.45, 0.55)
        reach, rise = (
            renderer.width * random.uniform(0.3, 0.5),
            renderer.height * random.uniform(0.05, 0.1),
        )
        paint = vary(random, (46, 46, 52), 14)
        renderer.ellipse(
            (middle - reach, renderer.height - rise),
            (middle + reach, renderer.height + rise),
            paint,
            VOID,
        )


def _markings(
    random: Generator, renderer: Renderer, camera: Camera, left: float, right: float
) -> None:
    white = vary(random, (206, 204, 196), 10)
    middle = (left + right) / 2
    if random.random() < 0.75:
        for start in np.arange(random.uniform(1, 5), 40, 5.0):
            _slab(renderer, camera, (middle - 0.09, middle + 0.09), (start, start + 2.4), white)
    if random.random() < 0.25:
        near = random.uniform(5, 10)
        for x in np.arange(left + 0.3, right - 0.3, 0.9):
            _slab(renderer, camera, (x, x + 0.45), (near, near + 2.5), white)


def _slab(
    renderer: Renderer,
    camera: Camera,
    x: tuple[float, float],
    z: tuple[float, float],
    colour: Colour,
) -> None:
    near = max(z[0], 0.8)
    corners = [(x[0], near), (x[1], near), (x[1], z[1]), (x[0], z[1])]
    renderer.polygon([camera.point(a, 0, b) for a, b in corners], colour, ROAD)


def _strip(
    renderer: Renderer, camera: Camera, a: float, b: float, colour: Colour, label: int
) -> None:
    renderer.polygon(_outline(camera, renderer, a, b), colour, label)


def _outline(camera: Camera, renderer: Renderer, a: float, b: float) -> list[tuple[float, float]]:
    """Outline the ground between x = a and x = b, from below the image to the horizon."""
    near = 0.8 * camera.focal * camera.eye / (renderer.height - camera.horizon)
    depths = [near, *(z for z in (3.0, 5.0, 8.0, 13.0, 22.0, 40.0, 70.0) if z > near), FAR]
    there = [camera.point(a, 0, z) for z in depths]
    return there + [camera.point(b, 0, z) for z in reversed(depths)]
