"""Runs side by side: seeds in one row, gains over the run that had no teacher."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from pipeline.report.results import RunResult


def excludes_zero(low: float | None, high: float | None) -> bool:
    """Return whether an interval leaves zero out; where there is none, it does not."""
    return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class Spread:
    """Mean of `count` values; the sample deviation needs two and is None for one."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Summarise the values there are; None if there is none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(fmean(known), stdev(known) if len(known) > 1 else None, len(known))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return where the mean lies with 95 %, by Student's t; None with one value."""
        if self.deviation is None:
            return None
        from scipy.stats import t  # takes a second

        reach = float(t.ppf(0.975, self.count - 1)) * self.deviation / sqrt(self.count)
        return self.mean - reach, self.mean + reach

    @property
    def is_certain(self) -> bool:
        """Return whether the interval leaves zero out; with one value it is never certain."""
        return excludes_zero(*(self.interval or (None, None)))


@dataclass(frozen=True)
class Row:
    """Runs equal but for the seed, with the runs they are measured against.

    Attributes:
        runs: in the order of params.
        baselines: for each run the cross-entropy run of the same network, training and seed, or
            None; for cross-entropy itself always None.
        distinction: names and values of the settings that tell it from the other rows of its
            network and method.
    """

    runs: tuple[RunResult, ...]
    baselines: tuple[RunResult | None, ...]
    distinction: tuple[tuple[str, Any], ...] = ()  # values of settings

    @property
    def name(self) -> str:
        """Return the names of its runs."""
        return ", ".join(run.name for run in self.runs)

    @property
    def architecture(self) -> str:
        """Return that of every run of the row."""
        return self.runs[0].settings.architecture

    @property
    def label(self) -> str:
        """Return that of the method of every run of the row."""
        return self.runs[0].settings.label

    @property
    def miou(self) -> Spread | None:
        """Return the spread over the seeds."""
        return Spread.of(run.scores.miou for run in self.runs)

    @property
    def pixel_accuracy(self) -> Spread | None:
        """Return the spread over the seeds."""
        return Spread.of(run.scores.pixel_accuracy for run in self.runs)

    @property
    def pairs(self) -> tuple[tuple[RunResult, RunResult], ...]:
        """Return every run that has a baseline, with it."""
        together = zip(self.runs, self.baselines, strict=True)
        return tuple((run, base) for run, base in together if base is not None)

    @property
    def gain(self) -> Spread | None:
        """Return mIoU minus that of the baseline, seed by seed; None without any baseline."""
        return Spread.of(difference(run.scores.miou, base.scores.miou) for run, base in self.pairs)

    @property
    def baseline_miou(self) -> Spread | None:
        """Return the spread over the baselines there are."""
        return Spread.of(base.scores.miou for base in self.baselines if base is not None)

    def class_means(self) -> tuple[tuple[float | None, float | None, float | None], ...]:
        """Return of every class the mean IoU of baselines and of their runs, and the gain."""
        pairs = self.pairs
        num_classes = len(self.runs[0].scores.iou)
        return tuple(
            (
                _mean(base.scores.iou[k] for _, base in pairs),
                _mean(run.scores.iou[k] for run, _ in pairs),
                _mean(difference(run.scores.iou[k], base.scores.iou[k]) for run, base in pairs),
            )
            for k in range(num_classes)
        )


def group_runs(runs: Sequence[RunResult]) -> tuple[Row, ...]:
    """Put runs equal but for the seed into one row, in the order of their first run.

    The same run under a second name, as one that was renamed leaves behind, is no second seed.
    """
    groups: dict[str, dict[int, RunResult]] = {}
    for run in runs:
        identity = json.dumps(run.settings.model_dump(mode="json", exclude={"seed"}))
        groups.setdefault(identity, {}).setdefault(run.settings.seed, run)
    rows = [
        Row(tuple(group.values()), tuple(find_baseline(run, runs) for run in group.values()))
        for group in groups.values()
    ]
    return tuple(replace(row, distinction=_distinguish(row, rows)) for row in rows)


def describe_settings(row: Row) -> dict[str, Any]:  # values of settings
    """Return all that shapes the runs of a row but network, method and seed, by name."""
    settings = row.runs[0].settings
    return {
        "encoder_weights": settings.encoder_weights,
        **settings.training.model_dump(exclude={"augment"}),
        **settings.training.augment.model_dump(),
        **settings.distillation.model_dump(),
        **settings.weights,
    }


def _distinguish(row: Row, rows: Sequence[Row]) -> tuple[tuple[str, Any], ...]:
    """Find settings in which a row differs from most of its like; if in none, all that vary."""
    own = describe_settings(row)
    alike = [
        describe_settings(other)
        for other in rows
        if (other.architecture, other.label) == (row.architecture, row.label)
    ]
    counts = {name: Counter(settings[name] for settings in alike) for name in own}
    varying = [name for name in own if len(counts[name]) > 1]
    unusual = [name for name in varying if _usual(counts[name]) != [own[name]]]
    return tuple((name, own[name]) for name in unusual or varying)


def _usual(counts: Counter[Any]) -> list[Any]:  # values of settings
    """Return the values that occur most often."""
    most = max(counts.values())
    return [value for value, number in counts.items() if number == most]


def find_baseline(run: RunResult, runs: Sequence[RunResult]) -> RunResult | None:
    """Find the cross-entropy run equal in network, encoder weights, training and seed."""
    if not run.settings.weights:
        return None
    same = ("architecture", "encoder_weights", "training", "seed")
    for other in runs:
        equal = all(getattr(other.settings, name) == getattr(run.settings, name) for name in same)
        if equal and not other.settings.weights:
            return other
    return None


def find_best(rows: Sequence[Row]) -> Row | None:
    """Find the row of the highest mean mIoU."""
    measured = [row for row in rows if row.miou is not None]
    return max(measured, key=lambda row: row.miou.mean if row.miou else 0.0, default=None)


def find_headline(rows: Sequence[Row]) -> Row | None:
    """Find the best row that has a gain, of several seeds if there is one: the page is about it."""
    compared = [row for row in rows if row.gain is not None]
    spread = [row for row in compared if row.gain and row.gain.count > 1]
    return find_best(spread or compared)


def difference(value: float | None, base: float | None) -> float | None:
    """Return `value` - `base`; None where one is unknown."""
    return None if value is None or base is None else value - base


def _mean(values: Iterable[float | None]) -> float | None:
    spread = Spread.of(values)
    return None if spread is None else spread.mean
