"""What `dvc plots` draws: curves, IoU by class, and the confusion matrix as so many lines."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.params import Params
from pipeline.report.plots import PIXELS_PER_CLASS, share_out, write_plots
from pipeline.report.results import gather
from store.files import write_json


def test_every_run_has_a_file_of_each_kind(profile: Path, params: Params) -> None:
    write_plots(gather(profile, params), profile)
    curves = json.loads((profile / "plots/curves/r18_cirkd.json").read_bytes())
    assert [line["step"] for line in curves] == [1, 10, 20, 30]
    weights = {"kd": 1.0, "minibatch_pixel": 1.0, "memory_pixel": 0.1, "memory_region": 0.1}
    assert curves[0]["loss"] == pytest.approx(1.0 + 0.4 + sum(weights.values()))
    assert all(line.keys() == {"step", "loss", "task", "auxiliary", *weights} for line in curves)
    classes = json.loads((profile / "plots/classes/r18_ce.json").read_bytes())
    assert classes[0] == {"class": "road", "iou": 0.6}
    assert len(classes) == 3  # the fourth never occurs
    assert (profile / "plots/curves/r18_ce.json").is_file()


def test_a_confusion_matrix_is_lines_in_its_proportions(profile: Path, params: Params) -> None:
    path = profile / "students/r18_ce/evaluation.json"
    matrix = [[3, 1, 0, 0], [0, 8, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    write_json({**json.loads(path.read_bytes()), "confusion": matrix}, path)
    write_plots(gather(profile, params), profile)
    with (profile / "plots/confusion/r18_ce.csv").open(newline="") as file:
        counts = Counter((line["label"], line["prediction"]) for line in csv.DictReader(file))
    assert counts == {
        ("road", "road"): 75,
        ("road", "<b>&sky"): 25,
        ("<b>&sky", "<b>&sky"): 100,
        ("car", "road"): 34,
        ("car", "<b>&sky"): 33,
        ("car", "car"): 33,
    }


def test_an_evaluation_that_kept_no_matrix_has_none(profile: Path, params: Params) -> None:
    path = profile / "students/r18_ce/evaluation.json"
    values = json.loads(path.read_bytes())
    del values["confusion"]
    write_json(values, path)
    write_plots(gather(profile, params), profile)
    assert not (profile / "plots/confusion/r18_ce.csv").exists()


@pytest.mark.parametrize("counts", [[0, 0], [1, 2, 4], [10**12, 1], [1] * 7])
def test_shares_add_up(counts: list[int]) -> None:
    shares = share_out(np.array(counts), PIXELS_PER_CLASS)
    assert shares.sum() == (PIXELS_PER_CLASS if any(counts) else 0)
    exact = np.array(counts) * PIXELS_PER_CLASS / max(1, sum(counts))
    assert (abs(shares - exact) < 1).all()
