"""The leaderboard: every student of every profile, its gain, and what it costs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.config.params import StudentConfig
from pipeline.report.comparison import Row, excludes_zero, group_runs
from pipeline.report.results import REMAKE, RunResult, read_run
from pipeline.report.wording import architecture_title, duration, flops, percent, points, row_title
from store.files import reading


@dataclass(frozen=True)
class Entry:
    """One row of the leaderboard: runs equal but for the seed; shares are 0..1.

    Attributes:
        gain: mean difference to cross-entropy alone, of the same seeds.
        gain_low, gain_high: its 95 % confidence interval over the seeds; None with fewer than two.
        num_flops: of one view of the store, forward; None where they were not counted.
        images_per_s: of training, from the median step.
        train_s: seconds of one training, on average.
    """

    profile: str
    architecture: str
    method: str
    runs: str
    seeds: tuple[int, ...]
    miou: float | None
    deviation: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    num_parameters: int
    num_flops: int | None
    images_per_s: float
    train_s: float
    store: str
    commit: str | None

    @property
    def gain_is_certain(self) -> bool:
        """Return whether the interval of the gain leaves zero out."""
        return excludes_zero(self.gain_low, self.gain_high)


def read_leaderboard(artifacts: Path) -> tuple[Entry, ...]:
    """Read what was trained and measured, best first within each profile.

    Args:
        artifacts: the folder that holds profiles/<profile>/students/<run>/.
    """
    entries: list[Entry] = []
    for profile in sorted((artifacts / "profiles").glob("*")):
        stores: dict[str, list[RunResult]] = {}
        for run in _runs(profile):
            stores.setdefault(run.store, []).append(run)
        # Students of two stores are neither seeds of one row nor each other's baselines.
        rows = [row for runs in stores.values() for row in group_runs(runs)]
        entries += sorted((describe(profile.name, row) for row in rows), key=rank)
    return tuple(entries)


def _runs(profile: Path) -> Iterator[RunResult]:
    """Read every run of a profile that was evaluated."""
    for path in sorted(profile.glob("students/*/evaluation.json")):
        folder = path.parent
        if not (folder / "run.json").exists():
            continue  # it is being trained anew
        with reading(folder / "run.json", "what a training leaves behind", REMAKE):
            raw = json.loads((folder / "run.json").read_bytes())["params"]
            # As JSON: what params.yaml would hold.
            settings = StudentConfig.model_validate_json(json.dumps(raw))
        yield read_run(folder.name, folder, settings)


def rank(entry: Entry) -> float:
    """Return the key that sorts entries: the best first, those without mIoU last."""
    return 1.0 if entry.miou is None else -entry.miou


def describe(profile: str, row: Row) -> Entry:
    """Describe a row of a profile."""
    first, miou, gain = row.runs[0], row.miou, row.gain
    low, high = (gain and gain.interval) or (None, None)
    return Entry(
        profile=profile,
        architecture=architecture_title(row.architecture),
        method=row_title(row),
        runs=row.name,
        seeds=tuple(run.settings.seed for run in row.runs),
        miou=None if miou is None else miou.mean,
        deviation=None if miou is None else miou.deviation,
        gain=None if gain is None else gain.mean,
        gain_low=low,
        gain_high=high,
        num_parameters=first.num_parameters,
        num_flops=first.num_flops,
        images_per_s=first.settings.training.batch_size / first.step_s,
        train_s=sum(run.seconds for run in row.runs) / len(row.runs),
        store=first.store,
        commit=first.commit,
    )


COLUMNS = (
    *("profile", "network", "method", "seeds", "mIoU %", "gain", "95 % interval"),
    *("parameters", "FLOPs", "images/s", "training", "store", "commit"),
)


def table(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Put entries into words, a cell for each of COLUMNS."""
    return [
        (
            entry.profile,
            entry.architecture,
            entry.method,
            str(len(entry.seeds)),
            percent(entry.miou)
            + ("" if entry.deviation is None else f" ± {percent(entry.deviation)}"),
            points(entry.gain),
            interval(entry),
            f"{entry.num_parameters / 1e6:.1f} M",
            flops(entry.num_flops),
            f"{entry.images_per_s:.1f}",
            duration(entry.train_s),
            entry.store[:8],
            (entry.commit or "")[:8],
        )
        for entry in entries
    ]


def interval(entry: Entry) -> str:
    """Write the interval of a gain, and whether it is within the noise."""
    if entry.gain_low is None or entry.gain_high is None:
        return "one seed" if entry.gain is not None else ""
    words = f"{points(entry.gain_low)} to {points(entry.gain_high)}"
    return words if entry.gain_is_certain else f"{words}, within noise"


def as_markdown(entries: Sequence[Entry]) -> str:
    """Write a table of Markdown."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *table(entries)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def as_csv(entries: Sequence[Entry]) -> str:
    """Write every field as it is, with a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerow({**asdict(entry), "seeds": " ".join(map(str, entry.seeds))})
    return text.getvalue()


def as_json(entries: Sequence[Entry]) -> str:
    """Write every field as it is."""
    values: list[dict[str, Any]] = [asdict(entry) for entry in entries]
    return json.dumps(values, indent=2) + "\n"
