"""Pictures: their pixels, their reproducibility, and that they fit into a page."""

import base64
import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pipeline.report.figures import (
    ClassBar,
    Curve,
    colour_labels,
    draw_classes,
    draw_curves,
    draw_gains,
    encode_photo,
    series_colour,
    thin_out,
)
from pipeline.report.route_figure import Box, draw_route

PALETTE = ((10, 20, 30), (200, 100, 50))
BARS = (
    ClassBar("road", 0.9, 0.8, 0.85, 0.05),
    ClassBar("$car & <van>$", 0.5, 0.4, 0.3, -0.1),
    ClassBar("train", None, None, None, None),
)


def open_uri(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_colours_are_the_palettes_and_void_is_transparent() -> None:
    labels = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
    pixels = np.asarray(open_uri(colour_labels(labels, PALETTE, 480)).convert("RGBA"))
    for place, colour in enumerate(PALETTE):
        expected = np.array([*colour, 255])
        assert (pixels[labels == place] == expected).all()
    assert (pixels[labels == 255][:, 3] == 0).all()


def test_every_class_of_a_full_table_keeps_its_colour() -> None:
    palette = tuple((k, 255 - k, k // 2) for k in range(255))
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = np.asarray(open_uri(colour_labels(labels, palette, 480)).convert("RGBA"))
    assert [tuple(colour[:3]) for colour in pixels.reshape(-1, 4)[:255]] == list(palette)
    assert pixels[15, 15, 3] == 0


def test_large_maps_shrink_and_invent_no_class() -> None:
    labels = np.tile(np.array([0, 1], np.uint8), (50, 100))
    figure = open_uri(colour_labels(labels, PALETTE, 40))
    assert figure.size == (40, 10)
    colours = np.asarray(figure.convert("RGB")).reshape(-1, 3)
    assert {tuple(colour) for colour in colours.tolist()} <= set(PALETTE)
    assert open_uri(encode_photo(np.zeros((50, 200, 3), np.uint8), 40)).size == (40, 10)


def test_small_maps_keep_their_size() -> None:
    assert open_uri(encode_photo(np.zeros((5, 7, 3), np.uint8), 480)).size == (7, 5)


def test_photo_stays_close_to_the_image() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.stack([np.tile(ramp, (64, 1))] * 3, axis=-1)
    decoded = np.asarray(open_uri(encode_photo(image, 480)), dtype=int)
    assert np.abs(decoded - image).mean() < 3


@pytest.mark.parametrize("length", [1, 2, 99, 100, 101, 1234])
def test_thinning_keeps_the_mean_and_the_limit(length: int) -> None:
    values = np.random.default_rng(length).random(length)
    steps, thinned = thin_out(range(length), list(values), 100)
    assert len(steps) == len(thinned) <= 100
    width = -(-length // 100)
    sizes = np.minimum(width, length - np.arange(0, length, width))
    assert np.average(thinned, weights=sizes) == pytest.approx(values.mean())
    assert (np.diff(steps) > 0).all()


def test_short_curves_are_not_changed() -> None:
    steps, values = thin_out([1, 10, 20], [3.0, 2.0, 1.0], 100)
    assert list(steps) == [1, 10, 20]
    assert list(values) == [3.0, 2.0, 1.0]


CURVES = [Curve("a", series_colour(0), [1, 2, 3], [1.0, 0.1, 0.01])]
BOXES = [Box("Dataset", "<scenes>", ("320 images",)), Box("Teacher", "70 %", ())]
CHARTS: dict[str, Callable[[], str]] = {
    "curves": lambda: draw_curves("Loss & <more>", CURVES),
    "constant curve": lambda: draw_curves("Loss", [Curve("a", series_colour(1), [1], [0.0])]),
    "classes": lambda: draw_classes("Classes", BARS, series_colour(0), series_colour(1)),
    "gains": lambda: draw_gains("Gains", BARS, series_colour(1)),
}
ROUTES: dict[str, Callable[[], str]] = {
    "route across": lambda: draw_route(BOXES, 1, across=True),
    "route down": lambda: draw_route(BOXES, 1, across=False),
}


@pytest.mark.parametrize("draw", [*CHARTS.values(), *ROUTES.values()], ids=[*CHARTS, *ROUTES])
def test_svg_is_well_formed_scales_and_is_reproducible(draw: Callable[[], str]) -> None:
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    assert root.attrib["aria-label"]
    assert svg == draw()


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_charts_take_on_the_pages_colours_and_font(draw: Callable[[], str]) -> None:
    svg = draw()
    assert "var(--ink)" in svg
    assert "var(--sans)" in svg
    for foreign in ("DejaVu", "#010203", "#040506", "#ffffff", "#000000", "<style"):
        assert foreign not in svg


def test_classes_show_gains_and_mark_the_absent() -> None:
    classes, gains = CHARTS["classes"](), CHARTS["gains"]()
    assert "+5.0" in gains
    assert "−10.0" in gains
    assert classes.count("absent") == 1
    for svg in (classes, gains):
        assert "$car &amp; &lt;van&gt;$" in svg


def test_values_over_decades_are_drawn_logarithmically() -> None:
    steep = draw_curves("t", [Curve("a", "#3f7fc4", [1, 2, 3], [100.0, 1.0, 0.01])])
    flat = draw_curves("t", [Curve("a", "#3f7fc4", [1, 2, 3], [3.0, 2.0, 1.0])])
    with_zero = draw_curves("t", [Curve("a", "#3f7fc4", [1, 2, 3], [100.0, 1.0, 0.0])])
    assert ">0.01<" in steep
    assert ">0.01<" not in flat
    assert ">0<" in with_zero  # only a linear axis has a zero


@pytest.mark.parametrize("across", [True, False])
def test_route_shortens_long_lines_and_keeps_its_border_whole(across: bool) -> None:
    svg = draw_route([Box("a", "b", ("x" * 80,)), Box("c", "d", ())], 1, across)
    assert "x" * 30 not in svg
    assert "…" in svg
    assert "no teacher from here on" in svg


def test_figures_need_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, pipeline.report.figures, pipeline.report.route_figure; "
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
