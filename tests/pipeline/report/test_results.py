"""Gathering results: what is read, what is refused, and the figures for DVC."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import Params
from pipeline.report.results import ReportError, gather, metrics
from store.files import write_json


def test_metrics_are_the_agreed_figures(profile: Path, params: Params) -> None:
    shared = {"seed": 0, "seconds": 61.5}
    assert metrics(gather(profile, params)) == {
        "teacher": {"miou": 0.7},
        "students": {
            "r18_ce": {"miou": 0.5, "pixel_accuracy": 0.7, "method": "ce", **shared},
            "r18_cirkd": {"miou": 0.55, "pixel_accuracy": 0.75, "method": "cirkd", **shared},
        },
        "store": {
            "records": 6,
            "bytes": 1_300_030,
            "fingerprint": "f00d",
            "teacher_miou_train": 0.75,
        },
    }


def test_runs_follow_params_not_the_folder(profile: Path, params: Params) -> None:
    (profile / "students" / "left_over").mkdir()
    (profile / "students" / "left_over" / "run.json").write_text("not JSON")
    assert [run.name for run in gather(profile, params).runs] == ["r18_ce", "r18_cirkd"]


def test_missing_files_are_listed_together(profile: Path, params: Params) -> None:
    (profile / "students" / "r18_ce" / "evaluation.json").unlink()
    (profile.parents[1] / "manifests" / "tiny.audit.json").unlink()
    with pytest.raises(ReportError, match="2 finding") as error:
        gather(profile, params)
    assert "evaluation.json: no such file" in str(error.value)
    assert "tiny.audit.json: no such file" in str(error.value)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"store": "0ther"}, "r18_ce learned from store 0ther; expected f00d"),
        ({"params": {"seed": 7}}, "r18_ce: trained with seed 7; expected 0"),
        ({"params": {"training": {"steps": 9}}}, "trained with training.steps 9; expected 2"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    profile: Path, params: Params, change: dict[str, Any], finding: str
) -> None:
    path = profile / "students" / "r18_ce" / "run.json"
    write_json({**json.loads(path.read_text()), **change}, path)
    with pytest.raises(ReportError, match=re.escape(finding)):
        gather(profile, params)


def test_audit_of_other_content_is_refused(profile: Path, params: Params) -> None:
    path = profile.parents[1] / "manifests" / "tiny.audit.json"
    write_json({**json.loads(path.read_text()), "digest": "0ld"}, path)
    with pytest.raises(ReportError, match=r"audit\.json is of store content 0ld; expected d1e5"):
        gather(profile, params)


def test_params_of_another_profile_are_refused(profile: Path, params: Params) -> None:
    other = profile.rename(profile.with_name("other"))
    with pytest.raises(ReportError, match="params are of profile tiny; expected other"):
        gather(other, params)


def test_step_time_is_the_median(profile: Path, params: Params) -> None:
    assert gather(profile, params).runs[0].step_s == 0.25


def test_figures_that_do_not_exist_are_null(fabricate: Callable[..., tuple[Path, Params]]) -> None:
    results = gather(*fabricate({"a": ("ce", None)}))
    assert metrics(results)["students"]["a"]["miou"] is None
