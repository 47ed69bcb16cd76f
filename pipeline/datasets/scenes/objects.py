"""What stands in a street, in metres, and how it is painted: houses, trees, cars, people, poles.

World coordinates are metres from the camera's foot: x to the right, y up, z ahead. Things are
painted far to near, so that near ones occlude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from pipeline.datasets.scenes.renderer import (
    BUILDING,
    CAR,
    PERSON,
    POLE,
    VEGETATION,
    Camera,
    Colour,
    Renderer,
    pick,
    times,
    vary,
)

# Most colours tell the class; some lie near another's (dark cars on dark roads, pale cars and walls
# by pale paving), so that shape and place have to be learned too.
FACADES: tuple[Colour, ...] = (
    (168, 132, 100), (150, 82, 62), (186, 160, 118), (172, 110, 78), (128, 82, 72), (140, 98, 84),
)  # fmt: skip
GREENS: tuple[Colour, ...] = (
    (58, 96, 40), (78, 116, 46), (46, 84, 46), (70, 104, 36), (104, 108, 48),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = (
    (60, 40, 110), (40, 40, 46), (196, 198, 202), (36, 62, 140), (36, 90, 150), (170, 28, 30),
    (52, 54, 90), (210, 212, 214),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (196, 44, 40), (214, 74, 36), (226, 196, 50), (200, 40, 110), (236, 130, 40), (240, 170, 60),
    (180, 40, 60),
)  # fmt: skip
METALS: tuple[Colour, ...] = ((50, 56, 60), (64, 68, 66), (104, 108, 110))
PLATES: tuple[Colour, ...] = ((190, 36, 34), (36, 70, 160), (226, 200, 50))


@dataclass(frozen=True)
class Thing:
    """Something that stands in the street; what has the larger `z` is painted earlier."""

    z: float
    paint: Callable[[Renderer, Camera], None]


def building(random: Generator, side: int, x: float, z: float, length: float, sun: float) -> Thing:
    """Draw a house: its facade runs from z to z + length at x, on `side` -1 or 1 of the street."""
    wall = pick(random, FACADES, 12)
    height = random.uniform(4, 16)
    glass = vary(random, (70, 80, 94) if random.random() < 0.7 else (206, 196, 160), 16)
    floor, bay = random.uniform(2.6, 4), random.uniform(2.2, 4)
    back = x + side * random.uniform(5, 14)
    along = 0.82 + 0.28 * sun * side

    def paint(renderer: Renderer, camera: Camera) -> None:
        at = camera.point
        front = [at(x, 0, z), at(back, 0, z), at(back, height, z), at(x, height, z)]
        renderer.polygon(front, times(wall, 0.9), BUILDING)
        far = z + length
        facade = [at(x, 0, z), at(x, 0, far), at(x, height, far), at(x, height, z)]
        renderer.polygon(facade, times(wall, along), BUILDING)
        for level in range(int(height / floor)):
            low, high = level * floor + 0.9, level * floor + 0.9 + 0.5 * floor
            for bay_number in range(min(7, int(length / bay))):
                a = z + bay * (bay_number + 0.25)
                b = a + bay * 0.5
                window = [at(x, low, a), at(x, low, b), at(x, high, b), at(x, high, a)]
                renderer.polygon(window, glass, BUILDING)
                c = x + side * bay * (bay_number + 0.3)
                d = c + side * bay * 0.5
                if abs(d) < abs(back):
                    renderer.box(at(c, low, z), at(d, high, z), glass, BUILDING)

    # By its far end: whoever stands in front of the facade is nearer than that.
    return Thing(z + length, paint)


def tree(random: Generator, x: float, z: float) -> Thing:
    """Draw a trunk and a crown of leaves."""
    leaf, bark = pick(random, GREENS), vary(random, (82, 68, 54), 12)
    trunk, radius = random.uniform(1.2, 2.6), random.uniform(1.0, 2.3)
    offsets = random.normal(0, 0.45, (9, 2)) * radius
    sizes = random.uniform(0.4, 0.8, 9) * radius
    lights = random.uniform(0.65, 1.25, 9)

    def paint(renderer: Renderer, camera: Camera) -> None:
        at = camera.point
        renderer.box(at(x - 0.16, 0, z), at(x + 0.16, trunk + radius, z), bark, VEGETATION)
        for (across, up), size, light in zip(offsets, sizes, lights, strict=True):
            cx, cy = x + across, trunk + radius + up
            renderer.ellipse(
                at(cx - size, cy - size, z),
                at(cx + size, cy + size, z),
                times(leaf, light),
                VEGETATION,
            )

    return Thing(z, paint)


def hedge(random: Generator, x: float, z: float, length: float) -> Thing:
    """Draw a row of bushes along the sidewalk."""
    leaf = pick(random, GREENS)
    count = max(2, int(length / 0.8))
    sizes = random.uniform(0.5, 0.95, count)
    lights = random.uniform(0.75, 1.2, count)

    def paint(renderer: Renderer, camera: Camera) -> None:
        for number in reversed(range(count)):
            far, size = z + number * 0.8, sizes[number]
            a, b = camera.point(x - size, 0, far), camera.point(x + size, 1.6 * size, far)
            renderer.ellipse(a, b, times(leaf, lights[number]), VEGETATION)

    return Thing(z + length, paint)


def car(random: Generator, x: float, z: float) -> Thing:
    """Draw a car seen from behind or ahead, with the flank that faces the camera."""
    paint_colour = pick(random, PAINTS, 10)
    roof = random.uniform(1.4, 1.6) if random.random() < 0.75 else random.uniform(1.9, 2.5)
    half, length, belt = 0.95, random.uniform(3.8, 4.8), 0.55 * roof + 0.1
    lamp = (176, 30, 26) if random.random() < 0.6 else (236, 228, 190)
    glass = vary(random, (52, 62, 72), 10)
    flank = -half if x > 0 else half

    def paint(renderer: Renderer, camera: Camera) -> None:
        at, far, s = camera.point, z + length, x + flank
        left, right = x - half, x + half
        ground = [
            at(left - 0.2, 0, z - 0.2),
            at(right + 0.2, 0, z - 0.2),
            at(right, 0, far),
            at(left, 0, far),
        ]
        renderer.shadow(ground, 110)
        dark = times(paint_colour, 0.72)
        renderer.polygon(
            [at(s, 0.2, z), at(s, 0.2, far), at(s, belt, far), at(s, belt, z)], dark, CAR
        )
        cabin = [at(s, belt, z), at(s * 0.98 + x * 0.02, roof, z + 0.4)]
        cabin += [at(s * 0.98 + x * 0.02, roof, far - 1.6), at(s, belt, far - 0.8)]
        renderer.polygon(cabin, glass, CAR)
        for axle in (z + 0.7, far - 0.8):
            (cx, cy), r = at(s, 0.33, axle), 0.33 * camera.focal / axle
            renderer.ellipse((cx - 0.5 * r, cy - r), (cx + 0.5 * r, cy + r), (24, 24, 26), CAR)
        for wheel in (left + 0.05, right - 0.33):
            renderer.box(at(wheel, 0, z), at(wheel + 0.28, 0.4, z), (22, 22, 24), CAR)
        renderer.box(at(left, 0.25, z), at(right, belt, z), paint_colour, CAR)
        top = [at(left + 0.03, belt, z), at(left + 0.22, roof, z), at(right - 0.22, roof, z)]
        renderer.polygon([*top, at(right - 0.03, belt, z)], times(paint_colour, 0.92), CAR)
        pane = [
            at(left + 0.2, belt, z),
            at(left + 0.32, roof - 0.12, z),
            at(right - 0.32, roof - 0.12, z),
        ]
        renderer.polygon([*pane, at(right - 0.2, belt, z)], glass, CAR)
        for light in (left + 0.05, right - 0.35):
            renderer.box(at(light, belt - 0.3, z), at(light + 0.3, belt - 0.1, z), lamp, CAR)
        renderer.box(at(x - 0.25, 0.42, z), at(x + 0.25, 0.54, z), (214, 212, 200), CAR)

    return Thing(z, paint)


def person(random: Generator, x: float, z: float) -> Thing:
    """Draw someone standing or walking."""
    shirt, trousers = pick(random, CLOTHES), pick(random, CLOTHES)
    skin = vary(random, (178, 136, 108) if random.random() < 0.6 else (108, 76, 58), 12)
    h, stride, build = (
        random.uniform(1.5, 1.95),
        random.uniform(0.05, 0.3),
        random.uniform(0.3, 0.4),
    )

    def paint(renderer: Renderer, camera: Camera) -> None:
        at = camera.point
        renderer.shadow(
            [at(x - 0.4, 0, z - 0.3), at(x + 0.4, 0, z - 0.3), at(x + 0.5, 0, z + 0.4)], 140
        )
        for foot in (x - stride, x + stride):
            leg = [at(foot - 0.13, 0, z), at(foot + 0.13, 0, z), at(x + 0.24, 0.5 * h, z)]
            renderer.polygon([*leg, at(x - 0.24, 0.5 * h, z)], trousers, PERSON)
        for arm in (x - build, x + build):
            hand = arm + (arm - x) * 0.3
            sleeve = [
                at(arm - 0.07, 0.82 * h, z),
                at(arm + 0.07, 0.82 * h, z),
                at(hand + 0.07, 0.48 * h, z),
            ]
            renderer.polygon([*sleeve, at(hand - 0.07, 0.48 * h, z)], times(shirt, 0.85), PERSON)
        renderer.ellipse(at(x - build, 0.44 * h, z), at(x + build, 0.88 * h, z), shirt, PERSON)
        renderer.ellipse(at(x - 0.17, 0.82 * h, z), at(x + 0.17, 1.04 * h, z), skin, PERSON)

    return Thing(z, paint)


def pole(random: Generator, x: float, z: float) -> Thing:
    """Draw a street lamp, a traffic sign or a traffic light on its pole."""
    metal = pick(random, METALS, 8)
    kind, toward_road = int(random.integers(3)), -1 if x > 0 else 1
    h = (random.uniform(4.5, 6), random.uniform(2.4, 3.2), random.uniform(3, 3.8))[kind]
    half = random.uniform(0.24, 0.32)
    plate = pick(random, PLATES, 8)

    def paint(renderer: Renderer, camera: Camera) -> None:
        at = camera.point
        thick = max(half, renderer.height / 36 / (camera.focal / z))
        renderer.box(at(x - thick, 0, z), at(x + thick, h, z), metal, POLE)
        if kind == 0:
            end = x + toward_road * 1.7
            renderer.box(at(x, h - 1.4 * thick, z), at(end, h, z), metal, POLE)
            renderer.ellipse(at(end - 0.6, h - 0.6, z), at(end + 0.6, h, z), (222, 216, 190), POLE)
        elif kind == 1:
            renderer.ellipse(at(x - 0.6, h - 1.0, z), at(x + 0.6, h + 0.2, z), plate, POLE)
            renderer.box(at(x - 0.4, h - 0.52, z), at(x + 0.4, h - 0.28, z), (226, 224, 218), POLE)
        else:
            renderer.box(at(x - 0.42, h - 1.5, z), at(x + 0.42, h, z), (34, 36, 36), POLE)
            for number, lamp in enumerate(((200, 50, 40), (206, 170, 60), (60, 170, 90))):
                y = h - 0.28 - 0.46 * number
                renderer.ellipse(at(x - 0.19, y - 0.19, z), at(x + 0.19, y + 0.19, z), lamp, POLE)

    return Thing(z, paint)
