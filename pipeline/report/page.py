"""Everything measured for one profile, on one self-contained page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from pipeline.report import ablation, published, wording
from pipeline.report.comparison import Row, find_best, find_headline, group_runs
from pipeline.report.confusion import find_confusion
from pipeline.report.embeddings import DIRECTIONS, MOST_POINTS, draw_space, sample_maps
from pipeline.report.figures import TEACHER_COLOUR, series_colour
from pipeline.report.leaderboard import describe, interval, rank
from pipeline.report.results import Results, RunResult
from pipeline.report.route_figure import draw_route
from pipeline.report.samples import Shown
from pipeline.report.sections import (
    FIRST_WITHOUT_TEACHER,
    amortisation_panel,
    class_panels,
    curve_panels,
    fidelity_lines,
    main_arrays,
    route_boxes,
    sample_strip,
    space_panel,
    stage_costs,
    teacher_curves,
)

MOST_SHOWN = 6
"""Students whose predictions are shown: the page must stay small."""


def build_page(results: Results, shown: Sequence[Shown]) -> str:
    """Render the page, the same text for the same results.

    Args:
        results: of the profile.
        shown: validation samples as the teacher and the runs of `choose_shown` see them.
    """
    rows = group_runs(results.runs)
    board = [(row, describe(results.params.profile, row)) for row in rows]
    colours = {run.name: series_colour(index) for index, row in enumerate(rows) for run in row.runs}
    boxes = route_boxes(results, rows)
    return (
        _environment()
        .get_template("report.html")
        .render(
            results=results,
            rows=rows,
            board=sorted(board, key=lambda pair: rank(pair[1])),
            best=find_best(rows),
            published=published.compare(results, rows),
            confusion=find_confusion(find_best(rows)),
            teacher_curves=teacher_curves(results.teacher_log),
            **_embedded(results, shown),
            headline=wording.headline(rows, results.teacher_scores.miou),
            caveat=wording.caveat(rows),
            ablation=ablation.sentences(rows),
            routes=[
                Markup(draw_route(boxes, FIRST_WITHOUT_TEACHER, across)) for across in (True, False)
            ],
            colours=colours,
            teacher_colour=TEACHER_COLOUR,
            classes=class_panels(results, rows, colours),
            curves=curve_panels(results.runs, colours),
            strips=[sample_strip(results.index.palette, one) for one in shown],
            costs=stage_costs(results),
            amortisation=amortisation_panel(results),
            arrays=main_arrays(results.store.arrays),
            fidelity=fidelity_lines(results.store.fidelity),
            environments=_environments(results.runs),
            packaged=any(run.settings.encoder_weights == "package" for run in results.runs),
            params_yaml=_as_yaml(results.params.model_dump(mode="json")),
        )
    )


def _embedded(results: Results, shown: Sequence[Shown]) -> dict[str, Any]:  # for the template
    """Draw and store the embeddings of the networks that are compared."""
    compared = choose_compared(results.runs) if shown else ()
    spaces = [space for name in compared if (space := draw_space(name, shown)) is not None]
    maps = [sample_maps(one, compared) for one in shown]
    return {
        "compared": compared,
        "spaces": spaces,
        "space_panels": [space_panel(results.index, space) for space in spaces],
        "space_classes": sorted({k for space in spaces for k in space.silhouettes}),
        "most_points": MOST_POINTS,
        "maps": {"classes": results.index.class_names, "samples": maps},
        "directions": DIRECTIONS,
        "kept": min((one["kept"] for sample in maps for one in sample["maps"]), default=1.0),
    }


def choose_shown(runs: Sequence[RunResult]) -> tuple[RunResult, ...]:
    """Choose whose predictions are shown: one run of each row, the compared pair first."""
    rows = group_runs(runs)
    pair = _compared_pair(rows)
    order = pair + [row.runs[0] for row in rows if row.runs[0] not in pair]
    chosen = order[:MOST_SHOWN]
    return tuple(run for run in runs if run in chosen)


def choose_compared(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Name the networks whose embeddings are compared: teacher, baseline, and a student of it."""
    pair = _compared_pair(group_runs(runs)) or choose_shown(runs)[:1]
    return ("teacher", *(run.name for run in pair))


def _compared_pair(rows: Sequence[Row]) -> list[RunResult]:
    """Take CIRKD's best row, whose terms are of embeddings, or else the headline; then its run."""
    cirkd = find_headline([row for row in rows if row.label == "cirkd"])
    chosen = cirkd or find_headline(rows)
    if chosen is None:
        return []
    run, base = chosen.pairs[0]
    return [base, run]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": interval,
        "percent": wording.percent,
        "points": wording.points,
        "spread": wording.spread,
        "count": wording.count,
        "flops": wording.flops,
        "number_of": wording.number_of,
        "duration": wording.duration,
        "size": wording.size,
        "architecture_title": wording.architecture_title,
        "row_title": wording.row_title,
        "source_title": wording.source_title,
    }
    return environment


def _environments(runs: Sequence[RunResult]) -> list[tuple[str, dict[str, str]]]:
    """List device and versions with the runs made there; usually one entry."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        facts = {"device": run.device, **run.versions}
        groups.setdefault(tuple(facts.items()), []).append(run.name)
    return [(", ".join(names), dict(facts)) for facts, names in groups.items()]


def _as_yaml(values: Any) -> str:  # JSON
    stream = io.StringIO()
    YAML().dump(values, stream)
    return stream.getvalue()
