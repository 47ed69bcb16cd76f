"""The loop: micro-batches add up to a batch, and a batch that does not fit says what would."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.training import TrainingConfig
from pipeline.runtime.rng import torch_generator
from pipeline.training.optimizer import Optimisation
from pipeline.training.steps import BatchTooLargeError, StepResult, train

CPU = torch.device("cpu")
TRAINING = TrainingConfig(
    steps=4,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=0.0,
    schedule="poly",
    precision="float32",
)


@dataclass(frozen=True)
class Rows:
    """A batch of plain rows."""

    values: Tensor
    record: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def first(self, size: int) -> "Rows":
        return Rows(self.values[:size])


def training(**update: object) -> TrainingConfig:
    return TrainingConfig.model_validate(TRAINING.model_dump() | update)


def rows(step: int) -> Tensor:
    return torch.randn(8, 3, generator=torch_generator(0, step))


def fit(module: nn.Module, training: TrainingConfig) -> list[StepResult]:
    optimisation = Optimisation(module, training, CPU)
    size = training.micro_batch_size()
    batches = (Rows(part) for step in range(training.steps) for part in rows(step).split(size))
    results = train(
        lambda batch: {"task": module(batch.values).square().mean()},
        {"task": 2.0},
        batches,
        optimisation,
        accumulate=training.accumulate,
    )
    taken = list(results)
    optimisation.finish()
    return taken


def line() -> nn.Module:
    module = nn.Linear(3, 1)
    nn.init.constant_(module.weight, 1.0)
    nn.init.constant_(module.bias, 0.5)
    return module


def test_a_step_names_the_records_of_all_its_micro_batches() -> None:
    batches = (Rows(torch.ones(2, 3), torch.tensor([n, 10 + n])) for n in range(4))
    module = line()
    compute = lambda batch: {"task": module(batch.values).square().mean()}  # noqa: E731
    optimisation = Optimisation(module, training(accumulate=2), CPU)
    results = train(compute, {"task": 1.0}, batches, optimisation, accumulate=2)
    assert [result.source.tolist() for result in results] == [[0, 10, 1, 11], [2, 12, 3, 13]]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_add_up_to_the_batch(accumulate: int) -> None:
    whole, parts = line(), line()
    one, other = fit(whole, TRAINING), fit(parts, training(accumulate=accumulate))
    torch.testing.assert_close(whole.weight, parts.weight)
    assert [result.step for result in other] == [1, 2, 3, 4]
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left.total, right.total)
        assert left.learning_rate == right.learning_rate


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of accumulate 3 x 1 ranks"):
        training(accumulate=3)
    with pytest.raises(ValueError, match="two samples or more"):
        training(accumulate=8)
    with pytest.raises(ValueError, match="accumulate 2 x 3 ranks"):
        training(accumulate=2).micro_batch_size(3)


def test_clipping_bounds_the_step() -> None:
    free, clipped = line(), line()
    fit(free, training(steps=1))
    fit(clipped, training(steps=1, clip_norm=0.01))
    start = line().weight
    assert (clipped.weight - start).norm() <= 0.1 * 0.01 + 1e-6 < (free.weight - start).norm()


def test_the_moving_average_is_the_average_of_the_weights() -> None:
    decay, seen = 0.5, []
    module = line()

    class Watched(Optimisation):
        def step(self) -> None:
            super().step()
            seen.append(module.weight.detach().clone())

    optimisation = Watched(module, training(ema_decay=decay), CPU)
    batches = (Rows(rows(step)) for step in range(4))
    list(train(lambda b: {"t": module(b.values).mean()}, {"t": 1.0}, batches, optimisation))
    optimisation.finish()
    expected = line().weight.detach()
    for weight in seen:
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(module.weight.detach(), expected)
    assert not torch.allclose(module.weight, seen[-1])


def test_float16_scales_the_loss_and_takes_the_same_steps() -> None:
    exact, scaled = line(), line()
    fit(exact, TRAINING)
    fit(scaled, training(precision="float16"))
    torch.testing.assert_close(exact.weight, scaled.weight)


def test_an_overflow_leaves_the_weights_alone() -> None:
    module = line()
    optimisation = Optimisation(module, training(precision="float16"), CPU)
    before = module.weight.detach().clone()
    optimisation.backward((module.weight * float("inf")).sum())
    optimisation.step()
    assert torch.equal(module.weight, before)
    optimisation.backward(module.weight.sum())
    optimisation.step()
    assert not torch.equal(module.weight, before)


def test_an_overflow_in_the_first_step_leaves_no_momentum_that_nobody_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch's fused SGD takes what lies in memory for its momentum then."""
    monkeypatch.setattr(torch, "empty_like", lambda x, **more: torch.full_like(x, float("nan")))
    module = line()
    settings = training(precision="float16", optimizer="sgd", schedule="poly")
    optimisation = Optimisation(module, settings, CPU)
    optimisation.backward((module.weight * float("inf")).sum())
    optimisation.step()
    optimisation.backward(module.weight.sum())
    optimisation.step()
    assert torch.isfinite(module.weight).all()


def test_a_batch_that_does_not_fit_says_what_does() -> None:
    module, tried = line(), []

    def compute(batch: Rows) -> dict[str, Tensor]:
        tried.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"task": module(batch.values).square().mean()}

    def batches() -> Iterator[Rows]:
        yield Rows(torch.randn(12, 3))

    steps = train(compute, {"task": 1.0}, batches(), Optimisation(module, TRAINING, CPU))
    with pytest.raises(BatchTooLargeError, match=r"12 samples .*, 3 do .*accumulate by 4"):
        list(steps)
    assert tried == [12, 6, 3]


def test_memory_that_runs_out_beside_the_passes_says_so() -> None:
    class Full(Optimisation):
        def step(self) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    module = line()
    batches = [Rows(torch.randn(4, 3))]
    optimisation = Full(module, TRAINING, CPU)
    steps = train(lambda b: {"t": module(b.values).mean()}, {"t": 1.0}, batches, optimisation)
    with pytest.raises(BatchTooLargeError, match=r"step 1 .*training\.accumulate"):
        list(steps)


def test_memory_that_holds_no_batch_at_all_says_so() -> None:
    def compute(batch: Rows) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    optimisation = Optimisation(line(), TRAINING, CPU)
    with pytest.raises(BatchTooLargeError, match="take a smaller crop"):
        list(train(compute, {}, [Rows(torch.zeros(4, 3))], optimisation))
