"""A training that was stopped and went on equals one that never stopped, bit for bit."""

import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from pipeline.config.params import Params
from pipeline.config.training import TrainingConfig
from pipeline.distillation.objective import Objective
from pipeline.loading.batch import Batch
from pipeline.loading.workers import LoaderError
from pipeline.models.network import build_network
from pipeline.runtime.distributed import Ranks
from pipeline.runtime.rng import seed_torch, torch_generator
from pipeline.training.run import Resources, Stop, TrainingRun, run_training
from pipeline.training.steps import NonFiniteTermError
from pipeline.training.student import student_run
from store.errors import StoreDamagedError, StoreLockedError
from store.lock import Lock
from store.reader import Reader

HOUSE = str(Path(__file__).parents[3] / "pipeline")

TRAINING = TrainingConfig(
    steps=9,
    batch_size=2,
    optimizer="adamw",
    learning_rate=0.01,
    weight_decay=0.01,
    schedule="one_cycle",
    precision="float32",
    checkpoint_every=4,
)


def net() -> nn.Module:
    seed_torch(0, "net")
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def batches(steps: range) -> Iterator[torch.Tensor]:
    return (torch.randn(6, 4, generator=torch_generator(3, step)) for step in steps)


def make_run(
    module: nn.Module,
    work: Path,
    training: TrainingConfig,
    watch: Callable[[int], None] = lambda n: None,
) -> TrainingRun:
    calls = iter(range(1, 1000))

    def terms(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        watch(next(calls))
        return {"task": module(batch).square().mean()}

    return TrainingRun(
        title="net",
        training=training,
        modules=module,
        parts={},
        compute_terms=terms,
        weights={"task": 1.0},
        open_batches=batches,
        begin=lambda: seed_torch(1, "dropout"),
        work=work,
        header={"run": "net"},
    )


def asked_until(stop_at: int) -> Callable[[], bool]:
    """Say yes until it is asked for the `stop_at`th time."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) < stop_at


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["poly", "one_cycle"])
@pytest.mark.parametrize("stop_at", [1, 4, 8])
def test_stopped_and_resumed_equals_never_stopped(
    optimizer: str, schedule: str, stop_at: int, tmp_path: Path
) -> None:
    training = TRAINING.model_copy(update={"optimizer": optimizer, "schedule": schedule})
    whole = net()
    assert run_training(make_run(whole, tmp_path / "whole", training)) is not None
    run = make_run(net(), tmp_path / "parts", training)
    assert run_training(run, keep_going=asked_until(stop_at)) is None
    assert torch.load(run.checkpoint)["step"] == stop_at
    resumed = net()
    assert run_training(make_run(resumed, tmp_path / "parts", training)) is not None
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    steps = [line["step"] for line in read_log(tmp_path / "parts")]
    assert steps == sorted(set(steps))
    assert steps[-1] == TRAINING.steps


@pytest.mark.parametrize(
    "update",
    [
        {"ema_decay": 0.9},
        {"precision": "float16", "clip_norm": 0.1},
        {"batch_size": 4, "accumulate": 2},
    ],
)
def test_every_option_resumes_bit_for_bit(update: dict[str, object], tmp_path: Path) -> None:
    training = TrainingConfig.model_validate(TRAINING.model_dump() | update)

    def micro_batches(steps: range) -> Iterator[torch.Tensor]:
        return (half for batch in batches(steps) for half in batch.chunk(training.accumulate))

    def take(module: nn.Module, work: Path, keep_going: Callable[[], bool] = lambda: True) -> None:
        run = replace(make_run(module, work, training), open_batches=micro_batches)
        run_training(run, keep_going=keep_going)

    whole, resumed = net(), net()
    take(whole, tmp_path / "whole")
    take(net(), tmp_path / "parts", asked_until(5))
    assert torch.load(tmp_path / "parts/last.pt")["step"] == 5
    take(resumed, tmp_path / "parts")
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_an_error_says_what_is_kept(tmp_path: Path) -> None:
    """A store that vanishes while it is read: the last checkpoint goes on when it is back."""

    def vanishing(steps: range) -> Iterator[torch.Tensor]:
        for step, batch in zip(steps, batches(steps), strict=True):
            if step == 6:
                raise StoreDamagedError("a file is missing", where="image/c.0", hint="repair it")
            yield batch

    with pytest.raises(StoreDamagedError) as failure:
        run_training(replace(make_run(net(), tmp_path, TRAINING), open_batches=vanishing))
    (note,) = failure.value.__notes__
    assert f"the same command goes on from {tmp_path / 'last.pt'}" in note
    whole, resumed = net(), net()
    run_training(make_run(whole, tmp_path / "whole", TRAINING))
    taken: list[int] = []
    run_training(make_run(resumed, tmp_path, TRAINING, taken.append))
    assert len(taken) == TRAINING.steps - TRAINING.checkpoint_every
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def read_log(work: Path) -> list[dict]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()[1:]]


def die_at(call: int) -> Callable[[int], None]:
    def watch(number: int) -> None:
        if number == call:
            raise KeyboardInterrupt

    return watch


def spoil_at(call: int, module: nn.Module) -> Callable[[int], None]:
    def watch(number: int) -> None:
        if number == call:
            nn.init.constant_(module[0].weight, float("nan"))

    return watch


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """An exception stands for kill -9: nothing is saved but what was saved before."""
    whole = net()
    run_training(make_run(whole, tmp_path / "whole", TRAINING))

    with pytest.raises(KeyboardInterrupt):
        run_training(make_run(net(), tmp_path / "parts", TRAINING, die_at(7)))
    taken = []
    resumed = net()
    run_training(make_run(resumed, tmp_path / "parts", TRAINING, taken.append))
    assert len(taken) == TRAINING.steps - TRAINING.checkpoint_every
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_a_term_that_is_not_finite_stops_with_its_name(tmp_path: Path) -> None:
    module = net()
    with pytest.raises(NonFiniteTermError, match=r"term task is nan at step 1"):
        run_training(make_run(module, tmp_path, TRAINING, spoil_at(1, module)))


def test_a_diverging_run_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """Between two looks at the terms: the next checkpoint finds it and is not written."""
    module = net()
    with pytest.raises(NonFiniteTermError, match=r"term task is nan at step 6") as failure:
        run_training(make_run(module, tmp_path, TRAINING, spoil_at(6, module)))
    assert torch.load(tmp_path / "last.pt")["step"] == TRAINING.checkpoint_every
    (note,) = failure.value.__notes__
    assert f"the last checkpoint before is {tmp_path / 'last.pt'}" in note


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    """The root of nothing is a finite term with an infinite slope."""
    module = net()
    run = replace(
        make_run(module, tmp_path, TRAINING.model_copy(update={"steps": 1})),
        compute_terms=lambda batch: {"task": (0 * module(batch).square().sum()).sqrt()},
    )
    with pytest.raises(NonFiniteTermError, match=r"weight is not finite after step 1"):
        run_training(run)
    assert not (tmp_path / "last.pt").exists()


def test_ranks_that_find_different_checkpoints_are_refused(tmp_path: Path) -> None:
    """Machines without a common disk: only the leader's has the file."""

    class Apart(Ranks):
        def collect(self, value: object) -> list[object]:
            return [value, 4]

    with pytest.raises(ValueError, match=r"from different steps, \[0, 4\]; .*all machines share"):
        run_training(replace(make_run(net(), tmp_path, TRAINING), ranks=Apart()))


def test_the_weighted_sum_is_minimised(tmp_path: Path) -> None:
    """Two terms pull at one number; where it comes to rest is decided by their weights."""

    class Number(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.zeros(()))

    number = Number()
    run = replace(
        make_run(number, tmp_path, TRAINING.model_copy(update={"steps": 300})),
        compute_terms=lambda batch: {
            "up": (number.value - 1).square(),
            "down": (number.value + 1).square(),
        },
        weights={"up": 3.0, "down": 1.0},
    )
    run_training(run)
    assert number.value.item() == pytest.approx(0.5, abs=0.01)
    last = read_log(tmp_path)[-1]
    terms = last["terms"]
    assert last["total"] == pytest.approx(3 * terms["up"] + terms["down"])
    rates = [line["learning_rate"] for line in read_log(tmp_path)]
    assert max(rates) > 5 * rates[-1]


def test_a_log_that_a_kill_cut_off_does_not_block_a_resume(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_training(make_run(net(), tmp_path, TRAINING, die_at(7)))
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "terms": {"task": 1.0}')
    run_training(make_run(net(), tmp_path, TRAINING))
    assert read_log(tmp_path)[-1]["step"] == TRAINING.steps


def test_a_second_process_on_the_same_run_is_refused(tmp_path: Path) -> None:
    with Lock(tmp_path), pytest.raises(StoreLockedError, match=f"process {os.getpid()}"):
        run_training(make_run(net(), tmp_path, TRAINING))


def test_a_run_killed_after_its_last_step_has_nothing_left_to_train(tmp_path: Path) -> None:
    first, again = net(), net()
    run_training(make_run(first, tmp_path, TRAINING))
    taken: list[int] = []
    run_training(make_run(again, tmp_path, TRAINING, taken.append))
    assert not taken
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))


def test_progress_tells_what_was_done_before_and_every_step(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, note: str) -> None:
        told.append((done, total))

    run_training(make_run(net(), tmp_path, TRAINING), progress, asked_until(4))
    run_training(make_run(net(), tmp_path, TRAINING), progress)
    steps = [*range(5), *range(4, TRAINING.steps + 1)]
    assert told == [(step, TRAINING.steps) for step in steps]


def test_a_worker_that_a_signal_took_along_ends_as_the_signal_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the signal it is an error; the checkpoint is kept either way."""
    monkeypatch.setattr("pipeline.training.run.SIGNALS_APART_S", 0)

    def dying(steps: range) -> Iterator[torch.Tensor]:
        yield from batches(range(steps.start, 5))
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    run = replace(make_run(net(), tmp_path, TRAINING), open_batches=dying)
    with pytest.raises(LoaderError):
        run_training(run)
    assert run_training(run, keep_going=asked_until(2)) is None
    assert torch.load(run.checkpoint)["step"] == TRAINING.checkpoint_every


class Asking(Ranks):
    """Ranks that note when they ask each other; another one is slower."""

    asked: ClassVar[list[object]] = []

    def collect(self, value: Any) -> list[Any]:
        self.asked.append(value)
        stops, pace = value
        return [value, (stops, 2 * pace)]


@pytest.mark.parametrize(("seconds", "steps"), [(0.01, [1, 11, 21]), (2.0, [*range(1, 26)])])
def test_ranks_ask_whether_to_stop_as_often_as_a_launchers_patience_needs(
    seconds: float, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    now = [0.0]
    monkeypatch.setattr("pipeline.training.run.time.monotonic", lambda: now[0])
    ranks = Asking(0, 2)
    stop = Stop(ranks, lambda: next(clock) < len(steps) - 1)
    found = []
    for step in range(1, 26):
        now[0] += seconds
        before = len(ranks.asked)
        ends = stop.is_due(step)
        if len(ranks.asked) > before:
            found.append(step)
        assert ends == (step == steps[-1])
    assert found == steps


def test_few_frames_lie_between_the_loop_and_an_objective(
    tiny_store: Reader, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_params.students["r18_ce"]
    settings = settings.model_copy(
        update={"training": settings.training.model_copy(update={"steps": 1})}
    )
    frames: list[str] = []
    compute = Objective.compute_terms

    def watch(self: Objective, batch: Batch) -> dict[str, torch.Tensor]:
        stack = [frame for frame in traceback.extract_stack()[:-1] if HOUSE in frame.filename]
        names = [frame.name for frame in stack]
        frames.extend(names[names.index("train") + 1 :])
        return compute(self, batch)

    monkeypatch.setattr(Objective, "compute_terms", watch)
    student = build_network(settings.architecture, tiny_store.spec.num_classes)
    run_training(student_run("ce", student, settings, tiny_store, {}, Resources(tmp_path)))
    assert 1 <= len(frames) <= 3
