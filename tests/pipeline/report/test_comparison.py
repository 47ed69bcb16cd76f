"""Rows, baselines and gains, and the sentences made of them."""

from typing import Any

import pytest

from pipeline.config.params import DistillationConfig, StudentConfig, StudentTrainingConfig
from pipeline.report.comparison import Row, Spread, find_best, find_headline, group_runs
from pipeline.report.results import RunResult, Scores
from pipeline.report.wording import (
    caveat,
    duration,
    headline,
    percent,
    points,
    row_title,
    size,
    spread,
)

TRAINING = StudentTrainingConfig(
    steps=2,
    batch_size=2,
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=0.0,
    schedule="poly",
    precision="float32",
)
DISTILLATION = DistillationConfig(
    temperature=1.0,
    similarity_temperature=0.1,
    pixel_queue=8,
    region_queue=8,
    pixel_contrast=8,
    region_contrast=8,
    pixels_per_class=2,
)


def make(name: str, method: str | None, miou: float | None, **settings: Any) -> RunResult:
    asked: dict[str, Any] = {
        "architecture": "deeplabv3_resnet18",
        "seed": 0,
        "training": TRAINING,
        "distillation": DISTILLATION,
        **settings,
    }
    return RunResult(
        name=name,
        settings=StudentConfig(method=method, **asked),
        scores=Scores(miou, (miou, None), miou),
        num_parameters=1,
        seconds=1.0,
        evaluation_seconds=1.0,
        peak_memory_bytes=1,
        device="cpu",
        versions={},
        log=(),
        store="f00d",
        commit=None,
    )


def last_row(*runs: RunResult) -> Row:
    return group_runs(runs)[-1]


def test_spread_is_the_mean_and_sample_deviation() -> None:
    assert Spread.of([0.1, None, 0.3]) == Spread(0.2, pytest.approx(0.02**0.5), 2)
    assert Spread.of([0.4]) == Spread(0.4, None, 1)
    assert Spread.of([None]) is None


def test_only_the_seed_is_shared_out_over_a_row() -> None:
    runs = (
        make("a", "ce", 0.5),
        make("b", "cirkd", 0.5),
        make("c", "ce", 0.5, seed=1),
        make("d", "ce", 0.5, training=TRAINING.model_copy(update={"steps": 9})),
    )
    assert [row.name for row in group_runs(runs)] == ["a, c", "b", "d"]


def sized(name: str, miou: float | None = 0.5, seed: int = 0, **sizes: int) -> RunResult:
    settings = DISTILLATION.model_copy(update=sizes)
    return make(name, "cirkd", miou, seed=seed, distillation=settings)


def titles(*runs: RunResult) -> list[str]:
    return [row_title(row) for row in group_runs(runs)]


def test_rows_of_one_method_are_told_apart_by_what_varies() -> None:
    assert titles(make("a", "ce", 0.5), sized("b"), sized("c", seed=1)) == ["CE", "CIRKD"]
    sizes = [sized(f"{n}", pixel_queue=n) for n in (8, 16, 32)]
    assert titles(*sizes) == [f"CIRKD, pixel_queue {n}" for n in (8, 16, 32)]


def test_what_most_rows_have_is_not_said_again() -> None:
    runs = (
        *(sized(f"p{n}", pixel_queue=n) for n in (8, 16, 32)),
        *(sized(f"r{n}", region_queue=n) for n in (4, 16)),
        make("other", "cirkd", 0.5, training=TRAINING.model_copy(update={"learning_rate": 0.25})),
    )
    assert titles(*runs) == [
        "CIRKD, learning_rate 0.1, pixel_queue 8, region_queue 8",
        "CIRKD, pixel_queue 16",
        "CIRKD, pixel_queue 32",
        "CIRKD, region_queue 4",
        "CIRKD, region_queue 16",
        "CIRKD, learning_rate 0.25",
    ]


def test_weights_and_other_networks_are_told_apart() -> None:
    weighted = [make(f"kd{w}", None, 0.5, terms={"kd": w}) for w in (0.5, 1.0)]
    assert titles(*weighted) == ["KD, kd 0.5", "KD, kd 1"]
    other = make("psp", "kd", 0.5, architecture="pspnet_resnet18", distillation=DISTILLATION)
    assert titles(weighted[0], other) == ["KD", "KD"]


def test_gains_are_taken_seed_by_seed() -> None:
    row = last_row(
        make("ce0", "ce", 0.50),
        make("ce1", "ce", 0.60, seed=1),
        make("kd1", "kd", 0.63, seed=1),
        make("kd0", "kd", 0.51),
    )
    assert row.gain == Spread(pytest.approx(0.02), pytest.approx(0.02 / 2**0.5), 2)
    assert row.class_means()[0] == pytest.approx((0.55, 0.57, 0.02))
    assert row.class_means()[1] == (None, None, None)


@pytest.mark.parametrize(
    "difference",
    [
        {"seed": 1},
        {"architecture": "pspnet_resnet18"},
        {"encoder_weights": "imagenet"},
        {"training": TRAINING.model_copy(update={"steps": 9})},
    ],
)
def test_a_run_is_measured_only_against_its_like(difference: dict[str, Any]) -> None:
    assert last_row(make("ce", "ce", 0.5, **difference), make("kd", "kd", 0.6)).gain is None


def test_distillation_settings_do_not_separate_a_run_from_its_baseline() -> None:
    other = DISTILLATION.model_copy(update={"pixel_queue": 99})
    row = last_row(make("ce", "ce", 0.5), make("kd", "kd", 0.6, distillation=other))
    assert row.gain is not None


def test_cross_entropy_has_no_gain_over_itself() -> None:
    assert last_row(make("ce", "ce", 0.5)).gain is None


def test_best_and_headline() -> None:
    rows = group_runs((make("ce", "ce", 0.7), make("kd", "kd", 0.6), make("none", "cirkd", None)))
    best, compared = find_best(rows), find_headline(rows)
    assert best is not None
    assert compared is not None
    assert (best.name, compared.name) == ("ce", "kd")


@pytest.mark.parametrize(
    ("student", "words", "unsaid"),
    [
        (0.55, "5.0 points above", "below"),
        (0.51, "1.0 point above", "points"),
        (0.45, "5.0 points below", "of the way"),
        (0.5001, "level with", "above"),
        (0.8, "30.0 points above", "of the way"),  # beyond the teacher
    ],
)
def test_headline_says_what_came_out(student: float, words: str, unsaid: str) -> None:
    rows = group_runs((make("ce", "ce", 0.5), make("kd", "kd", student)))
    sentence = headline(rows, 0.7)
    assert words in sentence
    assert unsaid not in sentence


def test_headline_counts_the_comparisons() -> None:
    other = {"architecture": "pspnet_resnet18"}
    runs = (
        make("a", "ce", 0.5),
        make("b", "kd", 0.6),
        make("c", "ce", 0.5, **other),
        make("d", "kd", 0.4, **other),
    )
    assert "ahead in 1 of 2 comparisons" in headline(group_runs(runs), None)


def test_a_lucky_seed_does_not_lead_the_page() -> None:
    pairs = {"ce": (0.50, 0.40), "kd": (0.52, 0.41)}
    runs = [make(f"{m}{k}", m, x, seed=k) for m, both in pairs.items() for k, x in enumerate(both)]
    runs.append(make("cirkd0", "cirkd", 0.51, seed=0))
    row = find_headline(group_runs(runs))
    assert row is not None
    assert row.label == "kd"  # of mean 0.465


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ((0.02,), "One seed"),
        ((0.02, 0.021), "leaves zero out"),
        ((0.02, 0.03), "holds zero"),  # 0.025 is more than its deviation, but 12.7 times 0.005
        ((0.02, -0.03), "holds zero"),
    ],
)
def test_caveat_weighs_the_seeds(gains: tuple[float, ...], words: str) -> None:
    runs = [
        make(f"{method}{seed}", method, 0.5 + (gain if method == "kd" else 0.0), seed=seed)
        for method in ("ce", "kd")
        for seed, gain in enumerate(gains)
    ]
    assert words in caveat(group_runs(runs))


def test_numbers_in_words() -> None:
    assert [percent(0.71234), percent(None), percent(0.5, 0)] == ["71.23", "–", "50"]
    assert [points(0.0123), points(-0.0123), points(-1e-7), points(None)] == [
        "+1.23",
        "−1.23",
        "0.00",
        "–",
    ]
    assert [duration(s) for s in (0.04, 99.96, 185, 3599.6, 7620, None)] == [
        "0.0 s",
        "1 min 40 s",
        "3 min 05 s",
        "1 h 00 min",
        "2 h 07 min",
        "–",
    ]
    assert [size(b) for b in (0, 999, 1_000, 12_345_678, 999_600)] == [
        "0 B",
        "999 B",
        "1 kB",
        "12.3 MB",
        "1 MB",
    ]
    assert spread(Spread(-0.01, 0.002, 3), signed=True) == "−1.00 ± 0.20"
