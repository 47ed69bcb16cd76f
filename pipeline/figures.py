"""Pictures for the page: charts as inline SVG in the page's colours, pixels as data URIs."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

SERIES = (
    "#d07c2e",
    "#3f7fc4",
    "#4a9d6f",
    "#9a68b8",
    "#c25b6a",
    "#8a8436",
    "#3d9aa6",
    "#8b6f5c",
)
"""Colours of the runs, in their order; readable on white and on near-black."""
TEACHER_COLOUR = "#85888f"

# Drawn with these stand-ins, which the page then replaces by its own variables.
_INK, _LINE = "#010203", "#040506"
_VARIABLES = {_INK: "var(--ink)", _LINE: "var(--line)"}
_LOG_FROM = 15.0


@dataclass(frozen=True)
class Curve:
    """One run's values of one term: steps and values of equal length, and its colour."""

    name: str
    colour: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True)
class ClassBar:
    """IoU of one class, 0..1: teacher, baseline, student, and the gain; None where absent."""

    name: str
    teacher: float | None
    baseline: float | None
    student: float | None
    gain: float | None


def series_colour(place: int) -> str:
    """The colour of the run at this place, starting again after the last."""
    return SERIES[place % len(SERIES)]


def draw_curves(title: str, curves: Sequence[Curve], points: int = 120) -> str:
    """Draw one term over the steps of every run, in SVG; logarithmic if the values span decades.

    Args:
        title: names the picture for those who cannot see it.
        curves: of the runs that have this term.
        points: a longer log is averaged down to so many, which keeps the page small.
    """
    figure, axes = _figure(290, 150)
    axes.set_position((0.14, 0.15, 0.84, 0.81))
    shown = [thin_out(curve.steps, curve.values, points) for curve in curves]
    for curve, (steps, values) in zip(curves, shown, strict=True):
        axes.plot(steps, values, color=curve.colour, linewidth=1.4, solid_joinstyle="round")
    values = np.concatenate([values for _, values in shown]) if shown else np.ones(1)
    if values.min() > 0 and values.max() > _LOG_FROM * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    return _svg(figure, title)


def thin_out(
    steps: Sequence[int], values: Sequence[float], points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average neighbours until at most `points` are left; short curves stay as they are."""
    width = -(-len(steps) // points)
    starts = np.arange(0, len(steps), max(width, 1))
    sizes = np.diff([*starts, len(steps)])
    pair = (np.asarray(column, dtype=np.float64) for column in (steps, values))
    thinned = tuple(np.add.reduceat(column, starts) / sizes for column in pair)
    return thinned[0], thinned[1]


def draw_classes(
    title: str, bars: Sequence[ClassBar], baseline_colour: str, student_colour: str
) -> str:
    """Draw IoU per class and the student's gain over its baseline, in SVG, first class on top."""
    figure = Figure(figsize=(680 / 72, (46 + 21 * len(bars)) / 72), dpi=72)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
    margin = 23 / (46 + 21 * len(bars))
    figure.subplots_adjust(left=0.17, right=0.985, top=1 - margin, bottom=margin, wspace=0.05)
    for axes in (left, right):
        _style(axes)
        axes.grid(axis="x", color=_LINE, linewidth=0.7)
    _draw_iou(left, bars, baseline_colour, student_colour)
    _draw_gains(right, bars, student_colour)
    left.set_ylim(len(bars) - 0.4, -0.6)
    left.set_yticks(range(len(bars)), [bar.name for bar in bars])
    for label in left.get_yticklabels():
        label.set_parse_math(False)
    right.tick_params(labelleft=False)
    left.set_title("IoU, %", loc="left", fontsize=10, color=_INK)
    right.set_title("gain, points", loc="left", fontsize=10, color=_INK)
    return _svg(figure, title)


def _draw_iou(axes: Axes, bars: Sequence[ClassBar], baseline: str, student: str) -> None:
    for row, bar in enumerate(bars):
        if bar.baseline is not None and bar.student is not None:
            ends = [100 * bar.baseline, 100 * bar.student]
            axes.plot(ends, [row, row], color=student, linewidth=2.4, alpha=0.45, zorder=2)
        if bar.teacher is None and bar.baseline is None and bar.student is None:
            axes.text(1, row, "absent", color=_INK, alpha=0.6, fontsize=9, va="center")
        for value, colour, marker, area in (
            (bar.teacher, TEACHER_COLOUR, "|", 90),
            (bar.baseline, baseline, "o", 30),
            (bar.student, student, "o", 30),
        ):
            if value is not None:
                axes.scatter(100 * value, row, color=colour, marker=marker, s=area, zorder=3)
    axes.set_xlim(-1.5, 101.5)


def _draw_gains(axes: Axes, bars: Sequence[ClassBar], colour: str) -> None:
    gains = [100 * (bar.gain or 0.0) for bar in bars]
    reach = max([1.0, *map(abs, gains)])
    for row, (bar, gain) in enumerate(zip(bars, gains, strict=True)):
        if bar.gain is None:
            continue
        # A loss is hollow: the sign must not hang on the side of a thin line alone.
        face = colour if gain >= 0 else "none"
        axes.barh(row, gain, height=0.55, color=face, edgecolor=colour, linewidth=1, zorder=2)
        side = 1 if gain >= 0 else -1
        text = f"{gain:+.1f}".replace("-", "−")
        align = "left" if gain >= 0 else "right"
        place = gain + side * reach * 0.04
        axes.text(place, row, text, ha=align, va="center", fontsize=9, color=_INK)
    lowest, highest = min([0.0, *gains]), max([0.0, *gains])
    axes.set_xlim(lowest - 0.32 * reach, highest + 0.32 * reach)
    axes.axvline(0, color=_INK, linewidth=0.8, zorder=3)
    axes.locator_params(axis="x", nbins=5)


def colour_labels(
    labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]], width: int
) -> str:
    """Encode labels [H, W] as a PNG data URI in the palette's colours; void is transparent.

    Args:
        labels: classes 0..K-1, or 255.
        palette: RGB 0..255 of every class.
        width: at most so many pixels wide; a larger picture takes the nearest pixel.
    """
    void = len(palette)
    picture = Image.fromarray(np.minimum(labels, void))
    picture = picture.resize(_fit(picture.size, width), Image.Resampling.NEAREST)
    indexed = Image.new("P", picture.size)
    indexed.putpalette([part for colour in (*palette, (0, 0, 0)) for part in colour])
    indexed.frombytes(picture.tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG", optimize=True, transparency=void)
    return _data_uri(buffer, "image/png")


def encode_photo(image: NDArray[np.uint8], width: int) -> str:
    """Encode an image RGB [H, W, 3] as a JPEG data URI, at most `width` pixels wide."""
    picture = Image.fromarray(image)
    picture = picture.resize(_fit(picture.size, width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, optimize=True)
    return _data_uri(buffer, "image/jpeg")


def _fit(size: tuple[int, int], width: int) -> tuple[int, int]:
    scale = min(1.0, width / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _data_uri(buffer: io.BytesIO, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _figure(width: int, height: int) -> tuple[Figure, Axes]:
    """A figure of so many CSS pixels, which are points here, and its one axes."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(which="both", length=0, labelsize=9, colors=_INK, labelcolor=_INK)
    axes.set_axisbelow(True)


def _svg(figure: Figure, title: str) -> str:
    """Render to an <svg> element in the page's font and colours, as wide as its place.

    The salt makes the names of clip paths a function of the picture, so the page is reproducible.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # An inline <style> would rule the whole page; the rest says nothing to a reader.
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL
    )
    text = re.sub(r"\s*\n\s*", "\n", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "var(--sans)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    width = round(figure.get_figwidth() * 72)
    label = html.escape(title, quote=True)
    opening = f'<svg role="img" aria-label="{label}" style="width:100%;max-width:{width}px"'
    text = re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg", opening, 1)
