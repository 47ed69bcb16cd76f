"""Samples: which are shown, and that they show what the networks said."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config.params import Params
from pipeline.report.results import gather
from pipeline.report.samples import NamedNetwork, pick_samples, show


def test_samples_are_spread_over_the_split(profile: Path, params: Params) -> None:
    index = gather(profile, params).index
    many = replace(index, splits={"val": tuple(index.splits["val"][:1] * 3)})
    assert len(pick_samples(many, "val")) == 3
    assert [sample.key for sample in pick_samples(index, "val", most=2)] == ["val/1", "val/3"]


def test_shown_predictions_are_the_networks_own(
    profile: Path, params: Params, constant: type[nn.Module]
) -> None:
    index = gather(profile, params).index
    networks = [NamedNetwork(str(n), lambda n=n: constant(n), "float32") for n in (0, 1)]
    told: list[None] = []
    samples = index.splits["val"][:1]
    (one,) = show(index, samples, networks, torch.device("cpu"), lambda: told.append(None))
    assert len(told) == len(networks)
    assert [prediction.name for prediction in one.predictions] == ["0", "1"]
    for n, prediction in enumerate(one.predictions):
        assert prediction.classes.shape == (20, 28)
        assert (prediction.classes == n).all()
    # 8 of 20 rows are class 1; the void columns do not count.
    assert one.accuracy(one.predictions[1]) == pytest.approx(8 / 20)
