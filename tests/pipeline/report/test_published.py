"""The paper's figures stand beside runs of its datasets and networks, with all that differs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.params import Params
from pipeline.report import published
from pipeline.report.comparison import group_runs
from pipeline.report.page import build_page
from pipeline.report.results import Results, gather

Fabricate = Callable[..., tuple[Path, Params]]

RECIPE = {"steps": 40_000, "batch_size": 16, "learning_rate": 0.02, "weight_decay": 0.0001}
PAPER = {
    "encoder_weights": "imagenet",
    "training": {**RECIPE, "optimizer": "sgd", "schedule": "poly"},
}


def results_of(fabricate: Fabricate, kind: str, students: dict) -> Results:
    """Results that say that they are of a dataset of the paper."""
    results = gather(*fabricate(students))
    return replace(results, index=replace(results.index, kind=kind))


def compared(results: Results) -> published.PublishedTable | None:
    return published.compare(results, group_runs(results.runs))


def test_rows_of_the_paper_stand_beside_ours(fabricate: Fabricate) -> None:
    students = {"a": ("ce", 0.5), "b": ("cirkd", 0.55), "c": ("at", 0.5)}
    results = results_of(fabricate, "cityscapes", students)
    table = compared(results)
    assert table is not None
    assert table.teacher == 0.7807
    assert [(one.row.name, one.miou) for one in table.rows] == [("a", 0.7421), ("b", 0.7638)]
    assert table.rows[1].gain == pytest.approx(0.0217)
    assert "students start from random weights here, from ImageNet’s in the paper" in (
        table.differences
    )
    assert "batch size 2 here, 16 in the paper" in table.differences
    page = build_page(results, [])
    assert "Not the same experiment: students start" in page
    assert '<td class="n">76.38</td>' in page


def test_the_papers_own_recipe_is_called_so(fabricate: Fabricate) -> None:
    results = results_of(fabricate, "voc", {"a": ("ce", 0.5, PAPER), "b": ("cirkd", 0.5, PAPER)})
    teacher = results.params.teacher.model_copy(update={"backbone": "imagenet"})
    params = results.params.model_copy(update={"teacher": teacher})
    results = replace(results, params=params)
    table = compared(results)
    assert table is not None
    assert table.differences == ()
    assert "Initialisation and recipe are the paper’s." in build_page(results, [])


def test_another_teacher_is_said(fabricate: Fabricate) -> None:
    results = results_of(fabricate, "camvid", {"a": ("ce", 0.5, PAPER)})
    card = replace(results.teacher, architecture="fcn_resnet101")
    table = compared(replace(results, teacher=card))
    assert table is not None
    assert table.teacher is None
    assert table.differences == (
        "another teacher than the paper’s DeepLabV3-R101",
        "measured on val here, on the test list in the paper",
    )


@pytest.mark.parametrize(
    ("kind", "more"),
    [("scenes", {}), ("cityscapes", {"architecture": "upernet_resnet18"})],
)
def test_what_the_paper_has_not_has_no_table(
    kind: str, more: dict[str, str], fabricate: Fabricate
) -> None:
    results = results_of(fabricate, kind, {"a": ("ce", 0.5, more)})
    assert compared(results) is None
    assert "Beside the paper" not in build_page(results, [])
