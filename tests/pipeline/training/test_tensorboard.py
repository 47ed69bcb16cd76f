"""TensorBoard gets what the log holds, and no training feels it."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config.training import TrainingConfig
from pipeline.runtime.rng import seed_torch, torch_generator
from pipeline.training.run import LOG_EVERY, TrainingRun, run_training

TRAINING = TrainingConfig(
    steps=2 * LOG_EVERY + 1,
    batch_size=2,
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=0.0,
    schedule="poly",
    precision="float32",
    checkpoint_every=LOG_EVERY,
)


class Recorded:
    """Stands in for SummaryWriter."""

    scalars: dict[tuple[str, int], float]
    purged: list[int]

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.purged.append(purge_step)

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert (name, step) not in self.scalars
        self.scalars[name, step] = value


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Recorded
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Recorded.scalars, Recorded.purged = {}, []
    return Recorded


def make_run(module: nn.Module, work: Path, tensorboard: Path | None = None) -> TrainingRun:
    def batches(steps: range) -> Iterator[torch.Tensor]:
        return (torch.randn(2, 4, generator=torch_generator(3, step)) for step in steps)

    return TrainingRun(
        title="net",
        training=TRAINING,
        modules=module,
        parts={},
        compute_terms=lambda batch: {"task": module(batch).square().mean()},
        weights={"task": 1.0},
        open_batches=batches,
        begin=lambda: seed_torch(1, "dropout"),
        work=work,
        header={},
        tensorboard=tensorboard,
    )


def net() -> nn.Module:
    seed_torch(0, "net")
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def logged(work: Path) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()[1:]]
    others = ("total", "learning_rate", "step_s", "wait_s")
    return {
        (name, line["step"]): value
        for line in lines
        for name, value in {
            "terms/task": line["terms"]["task"],
            **{x: line[x] for x in others},
        }.items()
    }


def stop_after(step: int) -> Callable[[], bool]:
    asked = iter(range(1, TRAINING.steps + 1))
    return lambda: next(asked) < step


def test_scalars_are_the_logs_and_the_weights_stay(
    recorded: type[Recorded], tmp_path: Path
) -> None:
    plain, watched = net(), net()
    run_training(make_run(plain, tmp_path / "plain"))
    assert recorded.purged == []
    run = make_run(net(), tmp_path / "watched", tmp_path / "scalars")
    assert run_training(run, keep_going=stop_after(LOG_EVERY)) is None
    run_training(
        replace(run, modules=watched, compute_terms=make_run(watched, run.work).compute_terms)
    )
    assert all(map(torch.equal, plain.state_dict().values(), watched.state_dict().values()))
    assert recorded.scalars == logged(tmp_path / "watched")
    assert recorded.purged == [1, LOG_EVERY + 1]
    checkpoints = [torch.load(tmp_path / name / "last.pt") for name in ("plain", "watched")]
    for checkpoint in checkpoints:
        del checkpoint["parts"]["stopwatch"]
    torch.testing.assert_close(*checkpoints, rtol=0, atol=0)


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="tensorboard is not here")
def test_tensorboard_reads_them(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_training(make_run(net(), tmp_path / "work", tmp_path / "scalars"))
    events = EventAccumulator(str(tmp_path / "scalars")).Reload()
    found = {
        (name, one.step): one.value
        for name in events.Tags()["scalars"]
        for one in events.Scalars(name)
    }
    assert found == pytest.approx(logged(tmp_path / "work"), rel=1e-6)
