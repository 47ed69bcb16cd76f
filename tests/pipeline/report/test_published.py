"""The paper's figures stand beside runs of its datasets and networks, with all that differs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def as_in_the_paper(results: Results) -> Results:
    """The same results of the paper's teacher, views and labels."""
    params = results.params
    training = params.teacher.training.model_copy(update=PAPER["training"])
    crop = params.store.crop.model_copy(
        update={"height": 512, "width": 512, "scale_min": 0.5, "scale_max": 2.0}
    )
    teacher = {"backbone": "imagenet", "training": training, "crop": crop}
    update = {
        "teacher": params.teacher.model_copy(update=teacher),
        "store": params.store.model_copy(update={"crop": crop}),
    }
    return replace(results, params=params.model_copy(update=update))


def test_the_papers_own_recipe_is_called_so(fabricate: Fabricate) -> None:
    cirkd = {**PAPER, "terms": published.VOC_WEIGHTS, "distillation": published.RELATIONS}
    students = {"a": ("ce", 0.5, PAPER), "b": ("cirkd", 0.5, cirkd)}
    results = as_in_the_paper(results_of(fabricate, "voc", students))
    table = compared(results)
    assert table is not None
    assert table.differences == ()
    assert "Initialisation and recipe are the paper’s." in build_page(results, [])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"source": "torchvision", "weights": "W1"}, "the teacher has torchvision’s weights W1"),
        ({"source": "checkpoint"}, "the teacher comes from a checkpoint, of whose training"),
        ({"crop": (360, 512)}, "its crops’ height 360 here, 512 in the paper"),
    ],
)
def test_other_weights_of_the_teacher_are_said(
    change: dict[str, Any], expected: str, fabricate: Fabricate
) -> None:
    results = as_in_the_paper(results_of(fabricate, "voc", {"a": ("ce", 0.5, PAPER)}))
    teacher = results.params.teacher
    if "crop" in change:
        height, width = change["crop"]
        crop = teacher.crop.model_copy(update={"height": height, "width": width})
        change = {"crop": crop}
    params = results.params.model_copy(update={"teacher": teacher.model_copy(update=change)})
    table = compared(replace(results, params=params))
    assert table is not None
    (difference,) = table.differences
    assert difference.startswith(expected)


def test_other_settings_of_cirkd_are_said(fabricate: Fabricate) -> None:
    more = {**PAPER, "distillation": {**published.RELATIONS, "pixel_queue": 10}}
    results = as_in_the_paper(results_of(fabricate, "voc", {"b": ("cirkd", 0.5, more)}))
    table = compared(results)
    assert table is not None
    assert table.differences == (
        "pixel queue 10 here, 20000 in the paper",
        "cirkd’s memory_pixel weighs 0.1 here, 0.01 in the paper",
        "cirkd’s memory_region weighs 0.1 here, 0.01 in the paper",
    )


def test_a_mean_over_other_classes_is_said(fabricate: Fabricate) -> None:
    steps = {**PAPER, "training": {**PAPER["training"], "steps": 80_000}}
    table = compared(results_of(fabricate, "coco_stuff", {"a": ("ce", 0.5, steps)}))
    assert table is not None
    assert "the mean is of 171 classes here" in table.differences[-1]
    assert not any(difference.startswith("steps") for difference in table.differences)


def test_another_teacher_is_said(fabricate: Fabricate) -> None:
    results = as_in_the_paper(results_of(fabricate, "camvid", {"a": ("ce", 0.5, PAPER)}))
    card = replace(results.teacher, architecture="fcn_resnet101")
    table = compared(replace(results, teacher=card))
    assert table is not None
    assert table.teacher is None
    assert table.differences == (
        "another teacher than the paper’s DeepLabV3-R101",
        "stored views’ height 512 here, 360 in the paper",
        "stored views’ width 512 here, 360 in the paper",
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
