"""Half precision is measured before time is spent in it."""

import time
from contextlib import contextmanager

import pytest
import torch

from pipeline.runtime import precision
from stages.command import measure_precision

CPU = torch.device("cpu")


@pytest.fixture
def slow_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which half precision waits for 20 ms in each forward pass."""
    scope = precision.precision_scope

    @contextmanager
    def slow(device, name):
        time.sleep(0.0 if name == "float32" else 0.02)
        with scope(device, name):
            yield

    monkeypatch.setattr(precision, "precision_scope", slow)


def test_a_slow_half_is_named_with_its_cost_and_what_to_set(slow_half, capsys) -> None:
    cost = measure_precision("bfloat16", CPU, "training.precision")
    assert cost > 1.2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"bfloat16 takes {cost:.1f} times as long" in line
    assert "set training.precision: float32" in line


def test_float32_is_not_measured(monkeypatch, capsys) -> None:
    monkeypatch.setattr(precision, "half_precision_cost", None)
    assert measure_precision("float32", CPU, "training.precision") is None
    assert capsys.readouterr().err == ""


def test_a_fast_half_is_not_talked_about(monkeypatch, capsys) -> None:
    monkeypatch.setattr(precision, "half_precision_cost", lambda *_: 0.5)
    assert measure_precision("bfloat16", CPU, "training.precision") == 0.5
    assert capsys.readouterr().err == ""
