"""The parts of the page that are drawn or counted: route, classes, curves, samples, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.datasets.index import Index
from pipeline.report import wording
from pipeline.report.amortisation import OFFLINE
from pipeline.report.comparison import Row, find_best, find_headline
from pipeline.report.embeddings import Space
from pipeline.report.figures import (
    TEACHER_COLOUR,
    ClassBar,
    Curve,
    colour_labels,
    draw_classes,
    draw_curves,
    draw_gains,
    draw_lines,
    draw_points,
    encode_photo,
    series_colour,
)
from pipeline.report.results import LoggedStep, Results, RunResult, StoredArray
from pipeline.report.route_figure import Box
from pipeline.report.samples import Shown

FIRST_WITHOUT_TEACHER = 3
"""Index of the students among the boxes of the route."""
SAMPLE_WIDTH_PX = 480
FEWEST_STUDENTS, MOST_STUDENTS = 8, 50
"""Counts of students that the costs are drawn to: at least, and to twice a break-even up to."""
MOST_PANELS, MOST_CLASSES = 6, 40
"""Rows whose classes are drawn, and of each the classes that change most: the page stays small."""
SMALL_ARRAY = 0.005
"""Arrays below this share of the store, raw and stored, are counted together."""


@dataclass(frozen=True)
class Panel:
    """Figures under one title; `keys` are the names and colours of what they show."""

    title: str
    note: str
    figures: tuple[Markup, ...]
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tile:
    """One network's classes on a sample, an overlay with transparent void."""

    title: str
    note: str
    source: str


@dataclass(frozen=True)
class Strip:
    """One sample: its photo, width and height, and every overlay."""

    key: str
    photo: str
    size: tuple[int, int]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Cost:
    """Seconds of one stage, None where nobody timed it; `once`: for all students together."""

    stage: str
    seconds: float | None
    once: bool


@dataclass(frozen=True)
class Costs:
    """Every timed stage, the longest of them, and what the teacher costs a student."""

    stages: tuple[Cost, ...]
    slowest: float
    sentence: str


def route_boxes(results: Results, rows: Sequence[Row]) -> tuple[Box, ...]:
    """Return the boxes of the route with this profile's figures."""
    return (
        _dataset_box(results),
        _teacher_box(results),
        _store_box(results),
        _students_box(results.runs),
        _report_box(results, find_best(rows)),
    )


def _dataset_box(results: Results) -> Box:
    index = results.index
    lines = [wording.number_of(len(s), f"{split} image") for split, s in index.splits.items()]
    classes = wording.number_of(index.num_classes, "class", "classes")
    return Box("Dataset", index.name, (*lines, classes))


def _teacher_box(results: Results) -> Box:
    teacher = results.teacher
    took = wording.duration(teacher.seconds)
    title = wording.architecture_title(teacher.architecture)
    origin = took if teacher.seconds else wording.source_title(teacher.source)
    return Box("Teacher", _miou(results.teacher_scores.miou), (title, origin))


def _store_box(results: Results) -> Box:
    store = results.store
    views = wording.number_of(store.views, "view")
    lines = [
        wording.number_of(store.records, "record"),
        f"{wording.number_of(store.images, 'image')} × {views}",
    ]
    if store.teacher_miou is not None:
        lines.append(f"teacher mIoU {wording.percent(store.teacher_miou, 1)} %")
    return Box("Store", wording.size(store.stored_bytes), tuple(lines))


def _students_box(runs: Sequence[RunResult], most: int = 3) -> Box:
    lines = [f"{run.name} {wording.duration(run.seconds)}" for run in runs[:most]]
    steps = sorted({run.settings.training.steps for run in runs})
    lines.append(f"{' or '.join(wording.count(n) for n in steps)} steps each")
    if len(runs) > most:
        lines[most - 1 : most] = [f"and {len(runs) - most + 1} more"]
    return Box("Students", wording.number_of(len(runs), "run"), tuple(lines))


def _report_box(results: Results, best: Row | None) -> Box:
    lines = (wording.number_of(len(results.index.splits["val"]), "val image"),)
    if best is None or best.miou is None:
        return Box("Report", wording.ABSENT, lines)
    names = f"best: {best.name}"
    return Box("Report", _miou(best.miou.mean), (names, *lines))


def _miou(value: float | None) -> str:
    return f"{wording.percent(value, 1)} % mIoU"


def class_panels(
    results: Results, rows: Sequence[Row], colours: Mapping[str, str]
) -> tuple[Panel, ...]:
    """Draw a panel for rows with a gain, the headline's first."""
    headline = find_headline(rows)
    compared = sorted((row for row in rows if row.gain), key=lambda row: row is not headline)
    return tuple(_class_panel(results, row, colours) for row in compared[:MOST_PANELS])


def _class_panel(results: Results, row: Row, colours: Mapping[str, str]) -> Panel:
    network, method = wording.architecture_title(row.architecture), wording.row_title(row)
    title = f"{network}: {method} against cross-entropy alone"
    run, base = row.pairs[0]
    together = zip(
        results.index.class_names, results.teacher_scores.iou, row.class_means(), strict=True
    )
    every = [ClassBar(name, teacher, *means) for name, teacher, means in together]
    most = set(sorted(every, key=lambda bar: -abs(bar.gain or 0.0))[:MOST_CLASSES])
    bars = [bar for bar in every if bar in most]
    some = f", the {len(bars)} classes that change most" if len(bars) < len(every) else ""
    figures = (
        Markup(draw_classes(f"IoU by class, {title}", bars, colours[base.name], colours[run.name])),
        Markup(draw_gains(f"Gain by class, {title}", bars, colours[run.name])),
    )
    keys = (
        ("cross-entropy alone", colours[base.name]),
        (method, colours[run.name]),
    )
    return Panel(title, row.name + some, figures, keys)


def teacher_curves(log: Sequence[LoggedStep]) -> tuple[Panel, ...]:
    """Draw the terms that the teacher logged; () where its log was not kept."""
    panels = []
    for term in log[0].terms if log else ():
        title = f"Teacher: {wording.term_title(term).lower()}"
        steps = [line.step for line in log]
        curve = Curve("teacher", TEACHER_COLOUR, steps, [line.terms[term] for line in log])
        panels.append(Panel(title, "", (Markup(draw_curves(f"{title} by step", [curve])),)))
    return tuple(panels)


def space_panel(index: Index, space: Space) -> Panel:
    """Draw a network's feature space; its note says how far its classes lie apart."""
    title = f"Pixel embeddings of {space.name} by t-SNE"
    figure = draw_points(title, space.points, space.classes, index.palette)
    return Panel(space.name, f"{space.silhouette:.2f}".replace("-", "−"), (Markup(figure),))


def curve_panels(runs: Sequence[RunResult], colours: Mapping[str, str]) -> tuple[Panel, ...]:
    """Draw a panel for each term that any run logged, cross-entropy first."""
    found = {name for run in runs for line in run.log for name in line.terms}
    order = [name for name in wording.term_titles() if name in found]
    order += sorted(found.difference(order))
    return tuple(_curve_panel(term, runs, colours) for term in order)


def _curve_panel(term: str, runs: Sequence[RunResult], colours: Mapping[str, str]) -> Panel:
    curves, weights = [], set()
    for run in runs:
        logged = [(line.step, line.terms[term]) for line in run.log if term in line.terms]
        if logged:
            steps, values = zip(*logged, strict=True)
            curves.append(Curve(run.name, colours[run.name], steps, values))
            weights.add(f"{run.weights[term]:g}")
    title = wording.term_title(term)
    figure = draw_curves(f"{title} by step", curves)
    return Panel(title, f"weight {', '.join(sorted(weights))}", (Markup(figure),))


def sample_strip(palette: Sequence[tuple[int, int, int]], one: Shown) -> Strip:
    """Draw a sample's photo and the classes its labels and every network give it."""
    tiles = [Tile("labels", "", colour_labels(one.labels, palette, SAMPLE_WIDTH_PX))]
    for prediction in one.predictions:
        note = f"{wording.percent(one.accuracy(prediction), 1)} % of pixels"
        source = colour_labels(prediction.classes, palette, SAMPLE_WIDTH_PX)
        tiles.append(Tile(prediction.name, note, source))
    height, width = one.labels.shape
    photo = encode_photo(one.image, SAMPLE_WIDTH_PX)
    return Strip(one.key, photo, (width, height), tuple(tiles))


def stage_costs(results: Results) -> Costs:
    """List seconds of every stage, and what the teacher's come to for each student."""
    once = [
        Cost("train the teacher", results.teacher.seconds or None, True),
        Cost("extract the store", results.store.extract_seconds, True),
    ]
    students = wording.number_of(len(results.runs), "student")
    evaluation = sum(run.evaluation_seconds for run in results.runs)
    each = [Cost(f"train {run.name}", run.seconds, False) for run in results.runs]
    each.append(Cost(f"evaluate {students}", evaluation, False))
    known = [cost.seconds for cost in (*once, *each) if cost.seconds is not None]
    paid = sum(cost.seconds or 0.0 for cost in once)
    sentence = ""
    if paid:
        share = wording.duration(paid / len(results.runs))
        sentence = (
            f"The teacher’s {wording.duration(paid)} are paid once: {share} for each of "
            f"{students}, and nothing more for the next one."
        )
    return Costs((*once, *each), max([1e-9, *known]), sentence)


def amortisation_panel(results: Results) -> Panel | None:
    """Draw the time of n students by variant; None where it was not measured."""
    found = results.amortisation
    if found is None:
        return None
    if found.store != results.store.fingerprint:
        note = (
            f"amortise.json is of store {found.store}; measure this one with "
            "`cirkd benchmark amortise`."
        )
        return Panel("When the store pays", note, ())
    evens = {variant: found.break_even(variant) for variant in found.baselines}
    within = [even for even in evens.values() if even is not None and even <= MOST_STUDENTS]
    counts = range(1, max([FEWEST_STUDENTS, *(2 * even for even in within)]) + 1)
    variants = (OFFLINE, *found.baselines)
    colours = {variant: series_colour(index) for index, variant in enumerate(variants)}
    slowest = max(found.total_s(variant, counts[-1]) for variant in variants)
    seconds, unit = wording.time_unit(slowest)
    lines = [
        Curve(
            variant, colours[variant], counts, [found.total_s(variant, n) / seconds for n in counts]
        )
        for variant in variants
    ]
    title = f"Time of n students, {unit}"
    return Panel(
        title,
        wording.amortised(found),
        (Markup(draw_lines(title, lines, sorted(set(within)))),),
        tuple((wording.VARIANTS[variant], colours[variant]) for variant in variants),
    )


def main_arrays(arrays: Sequence[StoredArray]) -> tuple[StoredArray, ...]:
    """Sort the arrays by size, the small ones added up in a last line."""
    raw, stored = (max(1, sum(sizes)) for sizes in zip(*map(_sizes, arrays), strict=True))
    small = [
        array
        for array in arrays
        if array.raw_bytes < SMALL_ARRAY * raw and array.stored_bytes < SMALL_ARRAY * stored
    ]
    large = sorted(set(arrays) - set(small), key=lambda array: (-array.stored_bytes, array.name))
    if not small:
        return tuple(large)
    rest = StoredArray(
        f"{len(small)} small arrays",
        sum(array.raw_bytes for array in small),
        sum(array.stored_bytes for array in small),
    )
    return (*large, rest)


def fidelity_lines(fidelity: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    """Describe how near the store is to the teacher, in words and figures."""
    return tuple(
        (title, f"{fidelity[name]:.3g}" if name.endswith("kl") else f"{fidelity[name]:.4f}")
        for name, title in wording.FIDELITY.items()
        if name in fidelity
    )


def _sizes(array: StoredArray) -> tuple[int, int]:
    return array.raw_bytes, array.stored_bytes
