"""The built-in dataset: street scenes, each drawn from seed, split, number and size alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.base import Count, Seed, Side
from pipeline.config.datasets import DatasetConfig
from pipeline.datasets.fingerprint import fingerprint_numbers
from pipeline.datasets.index import ClassTable
from pipeline.datasets.listing import Listing, Pair
from pipeline.datasets.scenes.background import backdrop, bonnet, ground, sky
from pipeline.datasets.scenes.objects import Thing, building, car, hedge, person, pole, tree
from pipeline.datasets.scenes.postprocess import OVERSAMPLING, expose
from pipeline.datasets.scenes.renderer import Camera, Renderer
from store.files import replacing
from store.schema import VOID

GENERATOR_VERSION = 2
"""Part of the fingerprint: raise it with every change of what is drawn."""
SPLITS = ("train", "val")
CLASSES = ClassTable(
    names=("sky", "road", "sidewalk", "building", "vegetation", "car", "person", "pole"),
    palette=(
        (70, 130, 180),
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (107, 142, 35),
        (0, 0, 142),
        (220, 20, 60),
        (153, 153, 153),
    ),
    label_ids=tuple(range(8)),
    void_ids=(VOID,),
)


class Config(DatasetConfig):
    """How many scenes, and of what size in pixels."""

    seed: Seed
    num_train: Count
    num_val: Count
    height: Side
    width: Side


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the parameters, which determine every pixel, and the generator's version."""
    fields = ("seed", "num_train", "num_val", "height", "width")
    numbers = {field: getattr(dataset, field) for field in fields}
    return fingerprint_numbers({"generator_version": GENERATOR_VERSION, **numbers})


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Draw every scene into pixels/<split>/images and labels, and pair the files."""
    splits = {
        split: tuple(
            Pair(f"{split}/{n:04d}", f"{split}/images/{n:04d}.png", f"{split}/labels/{n:04d}.png")
            for n in range(count)
        )
        for split, count in zip(SPLITS, (dataset.num_train, dataset.num_val), strict=True)
    }
    jobs = [(split, n, pair) for split, pairs in splits.items() for n, pair in enumerate(pairs)]

    def write(job: tuple[str, int, Pair]) -> None:
        split, number, pair = job
        image, labels = draw_scene(dataset.seed, split, number, dataset.height, dataset.width)
        for pixel_values, path in ((image, pair.image), (labels, pair.labels)):
            with replacing(pixels / path) as partial:
                Image.fromarray(pixel_values).save(partial, "PNG", compress_level=6)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(write, jobs))
    return Listing(CLASSES, splits)


def draw_scene(
    seed: int, split: str, number: int, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene.

    Returns:
        The image, RGB 0..255, uint8 [height, width, 3], and its labels, uint8 [height, width].
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), number))
    random = np.random.default_rng(sequence)
    renderer = Renderer(height * OVERSAMPLING, width * OVERSAMPLING)
    camera = _place_camera(random, renderer)
    curb = random.uniform(2.8, 5.0)
    middle = random.uniform(-0.45, 0.45) * curb
    sides = {side: middle + side * curb for side in (-1, 1)}
    sun = float(random.uniform(-1, 1))

    sky(random, renderer, camera)
    backdrop(random, renderer, camera)
    walks = ground(random, renderer, camera, sides, sun)
    things = [
        thing
        for side, edge in sides.items()
        for thing in _roadside(random, side, edge, walks[side], sun)
    ]
    things += _traffic(random, middle, curb)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.paint(renderer, camera)
    bonnet(random, renderer)
    return expose(random, renderer, camera)


def _place_camera(random: Generator, renderer: Renderer) -> Camera:
    return Camera(
        horizon=renderer.height * random.uniform(0.36, 0.5),
        vanishing=renderer.width * random.uniform(0.32, 0.68),
        focal=renderer.height * random.uniform(0.95, 1.25),
        eye=random.uniform(1.4, 1.9),
        bend=random.normal(0, 0.004),
    )


def _roadside(random: Generator, side: int, edge: float, walk: float, sun: float) -> list[Thing]:
    """Place houses or trees in a row, hedges, poles at the kerb and people on the sidewalk."""
    things: list[Thing] = []
    beyond = edge + side * walk
    z = random.uniform(1.5, 9)
    built = random.random() < 0.75
    while z < 60:
        length = random.uniform(6, 14)
        if built and random.random() < 0.85:
            setback = random.choice((0.0, 0.0, 2.5))
            things.append(building(random, side, beyond + side * setback, z, length, sun))
        else:
            things += [
                tree(random, beyond + side * random.uniform(0.8, 4), z + random.uniform(0, 5))
            ]
        z += length + random.choice((0.0, 0.0, 3.0))
    for _ in range(random.integers(0, 3)):
        things.append(tree(random, edge + side * random.uniform(0.5, walk), random.uniform(7, 30)))
    if random.random() < 0.45:
        things.append(hedge(random, beyond, random.uniform(4, 14), random.uniform(4, 12)))
    for _ in range(random.integers(1, 3)):
        things.append(pole(random, edge + side * random.uniform(0.3, 0.8), random.uniform(3.5, 7)))
    for _ in range(random.integers(1, 4)):
        x = edge + side * random.uniform(0.3, 1.4)
        things.append(person(random, x, random.uniform(3.6, 6.5)))
    return things


def _traffic(random: Generator, middle: float, curb: float) -> list[Thing]:
    """Place cars in their lanes and at the kerb, and now and then somebody crossing."""
    things: list[Thing] = []
    for _ in range(random.integers(1, 5)):
        lane = random.choice((-0.76, -0.45, 0.45, 0.76)) * curb
        things.append(car(random, middle + lane, 1 / random.uniform(1 / 13, 1 / 4.2)))
    if random.random() < 0.6:
        x = middle + random.uniform(-0.8, 0.8) * curb
        things.append(person(random, x, random.uniform(3.2, 5.5)))
    return things
