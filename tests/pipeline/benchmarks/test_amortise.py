"""The benchmark of break-even joins a finished profile's seconds with steps it times itself."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.benchmarks import amortise, variants
from pipeline.config.params import Params
from store.reader import Reader

CPU = torch.device("cpu")


def results_of(params: Params, extract_seconds: float | None) -> Any:
    """Of a profile whose students took ten seconds."""
    runs = [
        SimpleNamespace(name=name, settings=settings, seconds=10.0)
        for name, settings in params.students.items()
    ]
    store = SimpleNamespace(fingerprint="f00d", extract_seconds=extract_seconds)
    return SimpleNamespace(
        params=params, runs=runs, store=store, teacher=SimpleNamespace(seconds=7.0)
    )


def test_costs_are_joined(
    tiny_params: Params, tiny_store: Reader, tiny_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "NUM_WAIT_STEPS", 1)
    found = amortise.benchmark(
        results_of(tiny_params, 20.0),
        tiny_store,
        lambda: tiny_job(tiny_params.store),
        CPU,
        num_workers=0,
        num_rounds=1,
    )
    assert (found.store, found.student) == ("f00d", "r18_cirkd")
    assert (found.teacher_s, found.extraction_s) == (7, 20)
    assert found.student_s["offline"] == 10
    assert found.baselines == ("online", "public_code")
    ratio = found.step_s["online"] / found.step_s["offline"]
    assert found.student_s["online"] == pytest.approx(10 * ratio)


def test_what_cannot_be_measured_is_named(
    tiny_params: Params, tiny_store: Reader, tiny_job: Any
) -> None:
    def measure(params: Params, extract_seconds: float | None) -> None:
        amortise.benchmark(results_of(params, extract_seconds), tiny_store, tiny_job, CPU)

    with pytest.raises(ValueError, match="never timed"):
        measure(tiny_params, None)
    alone = tiny_params.model_copy(update={"students": {"a": tiny_params.students["r18_ce"]}})
    with pytest.raises(ValueError, match="profile tiny has no student with method cirkd"):
        measure(alone, 1.0)
