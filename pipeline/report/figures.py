"""Figures for the page: charts as inline SVG in the page's colours, pixels as data URIs."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def series_colour(index: int) -> str:
    """Return the colour of the run at this index, starting again after the last."""
    return SERIES[index % len(SERIES)]


def draw_curves(title: str, curves: Sequence[Curve], points: int = 120) -> str:
    """Draw one term over the steps of every run, in SVG; logarithmic if the values span decades.

    Args:
        title: names the figure for those who cannot see it.
        curves: of the runs that have this term.
        points: a longer log is averaged down to so many, which keeps the page small.
    """
    figure, axes = _figure(290, 150)
    axes.set_position((0.15, 0.16, 0.83, 0.80))
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


def draw_lines(title: str, lines: Sequence[Curve], marks: Sequence[int]) -> str:
    """Draw lines over small counts in SVG from zero, with a ring on the first at each mark.

    Args:
        title: names the figure for those who cannot see it.
        lines: values at counts, the same ones for every line.
        marks: counts to ring.
    """
    figure, axes = _figure(440, 220)
    axes.set_position((0.1, 0.11, 0.88, 0.86))
    for line in lines:
        axes.plot(line.steps, line.values, color=line.colour, linewidth=1.8)
    first = dict(zip(lines[0].steps, lines[0].values, strict=True))
    for mark in marks:
        axes.scatter(mark, first[mark], s=46, facecolor="none", edgecolor=_INK, zorder=3)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    return _svg(figure, title)


def draw_classes(
    title: str, bars: Sequence[ClassBar], baseline_colour: str, student_colour: str
) -> str:
    """Draw IoU per class in SVG, first class on top: dots for students, a tick for the teacher."""
    figure, axes = _class_figure(bars)
    for row, bar in enumerate(bars):
        if bar.baseline is not None and bar.student is not None:
            ends = [100 * bar.baseline, 100 * bar.student]
            axes.plot(ends, [row, row], color=student_colour, linewidth=2.4, alpha=0.45, zorder=2)
        if bar.teacher is None and bar.baseline is None and bar.student is None:
            axes.text(1, row, "absent", color=_INK, alpha=0.6, fontsize=10, va="center")
        for value, colour, marker, area in (
            (bar.teacher, TEACHER_COLOUR, "|", 90),
            (bar.baseline, baseline_colour, "o", 30),
            (bar.student, student_colour, "o", 30),
        ):
            if value is not None:
                axes.scatter(100 * value, row, color=colour, marker=marker, s=area, zorder=3)
    axes.set_xlim(-1.5, 101.5)
    return _svg(figure, title)


def draw_gains(title: str, bars: Sequence[ClassBar], colour: str) -> str:
    """Draw the gain per class in SVG, in percentage points, first class on top."""
    figure, axes = _class_figure(bars)
    gains = [100 * (bar.gain or 0.0) for bar in bars]
    reach = max([1.0, *map(abs, gains)])
    for row, (bar, gain) in enumerate(zip(bars, gains, strict=True)):
        if bar.gain is None:
            continue
        # A loss is hollow: its sign must not hang on the side of a thin line alone.
        won = gain >= 0
        face = colour if won else "none"
        axes.barh(row, gain, height=0.55, color=face, edgecolor=colour, linewidth=1, zorder=2)
        text = f"{gain:+.1f}".replace("-", "−") if abs(gain) >= 0.05 else "0.0"
        x = gain + (1 if won else -1) * 0.04 * reach
        align = "left" if won else "right"
        axes.text(x, row, text, ha=align, va="center", fontsize=10, color=_INK)
    axes.set_xlim(min([0.0, *gains]) - 0.28 * reach, max([0.0, *gains]) + 0.28 * reach)
    axes.axvline(0, color=_INK, linewidth=0.8, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    return _svg(figure, title)


def _class_figure(bars: Sequence[ClassBar]) -> tuple[Figure, Axes]:
    """Open a figure with a row for every class, named on the left."""
    width = 440
    height = 24 + 22 * len(bars)
    figure, axes = _figure(width, height)
    longest = max(len(bar.name) for bar in bars)
    left = min(0.4, (14 + 6.2 * longest) / width)
    axes.set_position((left, 20 / height, 0.985 - left, 1 - 22 / height))
    axes.grid(axis="x", color=_LINE, linewidth=0.7)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    return figure, axes


def draw_points(
    title: str,
    points: NDArray[np.float64],
    classes: NDArray[np.uint8],
    palette: Sequence[tuple[int, int, int]],
) -> str:
    """Draw points in SVG, in the palette's colours: a path for each class and one for its rim.

    Args:
        title: names the figure for those who cannot see it.
        points: [N, 2], in any unit.
        classes: [N].
        palette: RGB 0..255 of every class.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    placed = 6 + 288 * (points - low) / np.maximum(high - low, 1e-12)
    paths = []
    for k in np.unique(classes):
        # A line of no length with round ends is a dot.
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in placed[classes == k])
        red, green, blue = palette[k]
        paths.append(
            f'<g data-class="{k}"><path class="rim" d="{dots}"/>'
            f'<path d="{dots}" stroke="rgb({red} {green} {blue})"/></g>'
        )
    label = html.escape(title, quote=True)
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 300 300">{"".join(paths)}</svg>'


def colour_labels(
    labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]], width: int
) -> str:
    """Encode labels [H, W] as a PNG data URI in the palette's colours; void is transparent.

    Args:
        labels: classes 0..K-1, or 255.
        palette: RGB 0..255 of every class.
        width: at most so many pixels wide; a larger map takes the nearest pixel.
    """
    void = len(palette)
    image = Image.fromarray(np.minimum(labels, void))
    image = image.resize(_fit(image.size, width), Image.Resampling.NEAREST)
    indexed = Image.new("P", image.size)
    indexed.putpalette([part for colour in (*palette, (0, 0, 0)) for part in colour])
    indexed.frombytes(image.tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG", optimize=True, transparency=void)
    return _data_uri(buffer, "image/png")


def encode_photo(image: NDArray[np.uint8], width: int) -> str:
    """Encode an image RGB [H, W, 3] as a JPEG data URI, at most `width` pixels wide."""
    photo = Image.fromarray(image)
    photo = photo.resize(_fit(photo.size, width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=85, optimize=True)
    return _data_uri(buffer, "image/jpeg")


def _fit(size: tuple[int, int], width: int) -> tuple[int, int]:
    scale = min(1.0, width / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _data_uri(buffer: io.BytesIO, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _figure(width: int, height: int) -> tuple[Figure, Axes]:
    """Open a figure of so many CSS pixels, which are points here, and its one axes."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(which="both", length=0, labelsize=10, colors=_INK, labelcolor=_INK)
    axes.set_axisbelow(True)


def _svg(figure: Figure, title: str) -> str:
    """Render to an <svg> element in the page's font and colours, as wide as its parent.

    The salt makes the names of clip paths a function of the figure, so the page is reproducible.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)  # its method has no types
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        canvas.print_svg(buffer, metadata={"Date": None})
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
