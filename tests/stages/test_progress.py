"""What is left of a stage, told from the last minute alone."""

import pytest

from stages import progress
from stages.progress import MovingRate, progress_of_total


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees: its one element."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_first_step_predicts_nothing(clock: list[float]) -> None:
    rate = MovingRate(100, 0, "steps")
    clock[0] = 240.0
    rate.advance(1)
    assert str(rate) == ""
    clock[0] = 241.0
    rate.advance(1)
    assert str(rate) == "1.00 steps/s  98 s left"


def test_a_slow_start_is_forgotten_after_the_window(clock: list[float]) -> None:
    rate = MovingRate(1000, 100, "steps")
    for _ in range(3):  # half a minute each
        clock[0] += 30
        rate.advance(1)
    assert str(rate) == "0.03 steps/s  26910 s left"
    for _ in range(200):  # half a second each
        clock[0] += 0.5
        rate.advance(1)
    assert rate.done == 303
    assert str(rate).startswith("2.00 steps/s  348 s left")


def test_a_step_longer_than_the_window_still_has_a_rate(clock: list[float]) -> None:
    rate = MovingRate(4, 0, "steps")
    for _ in range(3):
        clock[0] += 600
        rate.advance(1)
    assert str(rate) == "0.00 steps/s  600 s left"


def test_a_total_may_come_with_the_first_call(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_of_total("check", "samples") as show:
        for done in range(3):
            clock[0] += 1
            show(done, 2)
    assert capsys.readouterr().err == "check 2/2  1.00 samples/s  0 s left\n"


def test_nothing_done_in_between_predicts_nothing(clock: list[float]) -> None:
    rate = MovingRate(4, 1, "units")
    for _ in range(2):
        clock[0] += 1
        rate.advance(0)
    assert str(rate) == ""
