"""The paper's orderings against the runs of an ablation, as they come out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import Params
from pipeline.report.ablation import VERDICTS, find_orderings, sentences
from pipeline.report.comparison import Row, group_runs
from pipeline.report.results import gather

HOLDS, FAILS, UNKNOWN = VERDICTS
Fabricate = Callable[[dict[str, Any]], tuple[Path, Params]]
SEEDS = (0.0, 0.01, -0.01)
"""What a seed adds to every run: much between runs, nothing between runs of one seed."""


def rows_of(
    fabricate: Fabricate, asked: dict[str, tuple[dict[str, Any], float]], seeds: tuple = SEEDS
) -> tuple[Row, ...]:
    """Rows of runs by name: keys of their params, and their mean mIoU."""
    students = {
        f"{name}_{seed}": (None, miou + shift, {"seed": seed, **keys})
        for name, (keys, miou) in asked.items()
        for seed, shift in enumerate(seeds)
    }
    profile, params = fabricate(students)
    return group_runs(gather(profile, params).runs)


def term(name: str, weight: float = 1.0) -> dict[str, Any]:
    return {"terms": {name: weight}}


def verdicts(rows: tuple[Row, ...]) -> dict[str, str]:
    return {ordering.words: ordering.verdict for ordering in find_orderings(rows)}


PAPER = {
    "ce": ({"terms": {}}, 0.50),
    "kd": (term("kd"), 0.60),
    "minibatch": (term("minibatch_pixel"), 0.58),
    "pixel": (term("memory_pixel", 0.1), 0.57),
    "region": (term("memory_region", 0.1), 0.56),
    "cirkd": ({"method": "cirkd"}, 0.65),
}


def test_the_papers_own_order_holds(fabricate: Fabricate) -> None:
    found = verdicts(rows_of(fabricate, PAPER))
    assert set(found.values()) == {HOLDS}
    assert len(found) == 4 + 3 + 1
    assert "KD of class probabilities adds more than Mini-batch pixel-to-pixel" in found
    assert "Memory pixel-to-pixel adds more than Memory pixel-to-region" in found


def test_what_came_out_otherwise_is_said(fabricate: Fabricate) -> None:
    other = {**PAPER, "region": (term("memory_region", 0.1), 0.61), "kd": (term("kd"), 0.45)}
    found = verdicts(rows_of(fabricate, other))
    assert found["Memory pixel-to-pixel adds more than Memory pixel-to-region"] == FAILS
    assert found["KD of class probabilities adds to cross-entropy"] == FAILS
    assert found["Memory pixel-to-region adds to cross-entropy"] == HOLDS


@pytest.mark.parametrize("seeds", [(0.0,), (0.0, 0.0, 0.0)])
def test_one_seed_or_no_difference_tells_nothing(fabricate: Fabricate, seeds: tuple) -> None:
    level = {name: (keys, 0.5) for name, (keys, _) in PAPER.items()}
    asked = PAPER if len(seeds) == 1 else level
    assert set(verdicts(rows_of(fabricate, asked, seeds)).values()) == {UNKNOWN}


def test_gaps_are_taken_seed_by_seed(fabricate: Fabricate) -> None:
    """Two rows that overlap, but differ by the same at every seed, are told apart."""
    close = {"kd": (term("kd"), 0.502), "pixel": (term("memory_pixel"), 0.500)}
    (ordering,) = find_orderings(rows_of(fabricate, close))
    assert ordering.verdict == HOLDS
    assert ordering.gap is not None
    assert ordering.gap.mean == pytest.approx(0.002)
    assert ordering.gap.count == 3


def sizes(queue: str, means: dict[int, float]) -> dict[str, tuple[dict[str, Any], float]]:
    return {
        f"{queue}{size}": ({"method": "cirkd", "distillation": {queue: size}}, miou)
        for size, miou in means.items()
    }


def test_a_queue_has_its_best_size_inside(fabricate: Fabricate) -> None:
    means = {32: 0.50, 40: 0.52, 48: 0.55, 64: 0.54}
    found = verdicts(rows_of(fabricate, sizes("pixel_queue", means)))
    assert found == {
        "pixel_queue 48 is better than the smallest, 32": HOLDS,
        "pixel_queue 48 is better than the largest, 64": HOLDS,
    }


def test_a_queue_that_only_grows_better_is_not_the_papers(fabricate: Fabricate) -> None:
    means = {8: 0.50, 16: 0.52, 32: 0.55}
    assert verdicts(rows_of(fabricate, sizes("region_queue", means))) == {
        "region_queue 16 is better than the smallest, 8": HOLDS,
        "region_queue 16 is better than the largest, 32": FAILS,
    }


def test_both_queues_share_the_default_row(fabricate: Fabricate) -> None:
    pixel, region = {40: 0.5, 48: 0.6, 32: 0.4}, {16: 0.3, 24: 0.2}  # region_queue 8 by default
    asked = sizes("pixel_queue", pixel) | sizes("region_queue", region)
    found = verdicts(rows_of(fabricate, asked))
    assert set(found) == {
        "pixel_queue 40 is better than the smallest, 32",
        "pixel_queue 40 is better than the largest, 48",
        "region_queue 16 is better than the smallest, 8",
        "region_queue 16 is better than the largest, 24",
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"ce": ({"terms": {}}, 0.5), "cirkd": ({"method": "cirkd"}, 0.6)},
        {"ce": ({"terms": {}}, 0.5), "kd": ({"method": "kd"}, 0.6)},
        sizes("pixel_queue", {32: 0.5, 40: 0.6}),
    ],
)
def test_nothing_is_said_where_nothing_is_ablated(fabricate: Fabricate, asked: dict) -> None:
    rows = rows_of(fabricate, asked)
    assert find_orderings(rows) == ()
    assert sentences(rows) == ()


def test_unmeasured_runs_are_no_evidence(fabricate: Fabricate) -> None:
    profile, params = fabricate(
        {
            f"{name}_{seed}": (None, None, {"seed": seed, **keys})
            for name, (keys, _) in (PAPER | sizes("pixel_queue", {32: 0, 40: 0, 48: 0})).items()
            for seed in range(2)
        }
    )
    rows = group_runs(gather(profile, params).runs)
    assert set(verdicts(rows).values()) == {UNKNOWN}


def test_sentences_give_the_figures(fabricate: Fabricate) -> None:
    other = {**PAPER, "region": (term("memory_region", 0.1), 0.61)}
    holds, fails = sentences(rows_of(fabricate, other))
    assert holds.startswith("Holds here: KD of class probabilities adds to cross-entropy (+10.00 ±")
    assert fails.startswith("Does not hold here: ")
    assert "more than Memory pixel-to-region (−4.00 ± 0.00)" in fails
