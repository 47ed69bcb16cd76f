"""The route of one run as a figure: boxes with its figures, across a page or down a phone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BOX_WIDTH, GAP, LINE_HEIGHT, PADDING = 166, 34, 17, 14
HEAD = 52
MOST_LETTERS = 21


@dataclass(frozen=True)
class Box:
    """One stop: what it is, its main figure, and lines of detail.

    Attributes:
        title: of the stop.
        figure: what it amounts to in this run.
        lines: details.
    """

    title: str
    figure: str
    lines: tuple[str, ...]


def draw_route(boxes: Sequence[Box], first_without_teacher: int, across: bool) -> str:
    """Draw boxes, arrows, and the line behind which there is no teacher, as an <svg> element.

    Args:
        boxes: in the order of the route.
        first_without_teacher: the index of the first box on the far side of that line.
        across: left to right; otherwise top to bottom.
    """
    height = HEAD + LINE_HEIGHT * max(len(box.lines) for box in boxes) + PADDING
    rectangles = _lay_out(boxes, height, across)
    drawn = [_draw_box(box, *rectangle) for box, rectangle in zip(boxes, rectangles, strict=True)]
    arrows = [_draw_arrow(*pair, across) for pair in pairwise(rectangles)]
    border = _draw_border(rectangles[first_without_teacher], across)
    total_width = max(x + w for x, _, w, _ in rectangles) + 1
    total_height = max(y + h for _, y, _, h in rectangles) + 1
    opening = (
        f'<svg viewBox="0 0 {total_width} {total_height}" role="img" '
        f'aria-label="The route of this run" class="route {"across" if across else "down"}">'
    )
    return "".join([opening, *drawn, *arrows, border, "</svg>"])


Rectangle = tuple[int, int, int, int]
"""x, y, width, height."""


def _lay_out(boxes: Sequence[Box], height: int, across: bool) -> list[Rectangle]:
    if across:
        return [(1 + n * (BOX_WIDTH + GAP), 24, BOX_WIDTH, height) for n in range(len(boxes))]
    rectangles, y = [], 1
    for box in boxes:
        own = HEAD + LINE_HEIGHT * len(box.lines) + PADDING
        rectangles.append((1, y, 330, own))
        y += own + GAP + 6
    return rectangles


def _draw_box(box: Box, x: int, y: int, width: int, height: int) -> str:
    left = x + PADDING
    rows = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="box"/>',
        _text(left, y + 22, box.title, "stop"),
        _text(left, y + 44, _short(box.figure), "figure"),
    ]
    rows += [
        _text(left, y + HEAD + 10 + LINE_HEIGHT * n, _short(line), "detail")
        for n, line in enumerate(box.lines)
    ]
    return "".join(rows)


def _draw_arrow(before: Rectangle, after: Rectangle, across: bool) -> str:
    x, y, width, height = before
    if across:
        start, end, middle = x + width + 4, after[0] - 4, y + height // 2
        line = f"M{start} {middle}H{end}m-5 -4l5 4l-5 4"
    else:
        start, end, middle = y + height + 4, after[1] - 4, x + 30
        line = f"M{middle} {start}V{end}m-4 -5l4 5l4 -5"
    return f'<path d="{line}" class="arrow"/>'


def _draw_border(rectangle: Rectangle, across: bool) -> str:
    """Draw the dashed line in the gap before a box, with both sides named."""
    x, y, width, height = rectangle
    if across:
        line = x - GAP // 2
        return (
            f'<path d="M{line} 2V{y + height}" class="border"/>'
            + _text(line - 8, 12, "the teacher runs once", "side ended")
            + _text(line + 8, 12, "no teacher from here on", "side")
        )
    line = y - GAP // 2 - 3
    words = _text(x + width, line - 5, "no teacher from here on", "side ended")
    return f'<path d="M{x} {line}H{x + width}" class="border"/>{words}'


def _text(x: int, y: int, words: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{html.escape(words)}</text>'


def _short(words: str) -> str:
    return words if len(words) <= MOST_LETTERS else words[: MOST_LETTERS - 1] + "…"
