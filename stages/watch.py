"""What is running or waits to go on: how far it is, how fast, and the curves of its terms."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from stages.command import StageCommand, json_option
from stages.work import FINISHED, WORK, read_header, read_steps
from store.errors import StoreError
from store.journal import read_journal
from store.layout import LocalFiles, read_spec, unit_key
from store.lock import is_locked
from store.manifest import Manifest
from store.schema import array_specs

if TYPE_CHECKING:
    from rich.console import Group

STORES, MANIFESTS = Path("artifacts/stores"), Path("artifacts/manifests")
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40
RECENT = 20
"""Logged steps, or units of a store, that the rate is of."""
DONE = "done"


@dataclass(frozen=True)
class Job:
    """One training or extraction.

    Attributes:
        state: running, unfinished (nobody is at it: the same command goes on) or done (DVC has yet
            to record it).
        unit: what is counted.
        per_s: of the latest; None before there are two to go by.
        terms: every term's logged values, in order, and their weighted sum `total`.
    """

    title: str
    state: str
    done: int
    total: int
    unit: str
    per_s: float | None
    terms: Mapping[str, Sequence[float]]

    @property
    def left_s(self) -> float | None:
        """Return the seconds that are left at this rate."""
        return (self.total - self.done) / self.per_s if self.per_s else None

    def __str__(self) -> str:
        """`student r18_ce  40/70 steps  0.52 steps/s  58 s left  running`."""
        parts = [f"{self.title}  {self.done}/{self.total} {self.unit}"]
        if self.per_s and self.left_s is not None:
            parts += [f"{self.per_s:.2f} {self.unit}/s", f"{self.left_s:.0f} s left"]
        return "  ".join([*parts, self.state])


def find_jobs() -> Iterator[Job]:
    """Read every training in artifacts/work, and every store that is being made, or waits to be."""
    for work in sorted(WORK.glob("*/")):
        with suppress(LookupError, TypeError, ValueError):  # the log of something else
            yield _read_training(work)
    finished = set()
    for path in MANIFESTS.glob("*.json"):
        with suppress(StoreError):
            finished.add(Manifest.read(path).fingerprint)
    for folder in sorted(STORES.glob("*/")):
        if folder.name not in finished or is_locked(folder):
            with suppress(StoreError):
                job = _read_extraction(folder)
                # A whole one that no manifest names is of settings of before.
                if job.state != DONE:
                    yield job


def _read_training(work: Path) -> Job:
    header, steps = read_header(work), list(read_steps(work))
    params = header["params"]
    recent = steps[-RECENT:]
    # A line's seconds are the mean of the steps since the line before.
    seconds = sum(line["step_s"] for line in recent) / len(recent) if len(recent) > 1 else None
    names = steps[-1]["terms"] if steps else ()
    terms = {name: [line["terms"][name] for line in steps] for name in names}
    return Job(
        title=f"student {header['run']}" if "run" in header else f"teacher {params['name']}",
        state=_state(work, (work / FINISHED).exists()),
        done=steps[-1]["step"] if steps else 0,
        total=params["training"]["steps"],
        unit="steps",
        per_s=1 / seconds if seconds else None,
        terms={**terms, "total": [line["total"] for line in steps]},
    )


def _read_extraction(folder: Path) -> Job:
    files = LocalFiles(folder)
    spec, units = read_spec(files), list(read_journal(files).units)
    array = next(iter(array_specs(spec).values()))
    written = [_seconds_of(folder / unit_key(array, unit)) for unit in units[-RECENT:]]
    passed = written[-1] - written[0] if written else 0.0
    num_recent = sum(len(spec.unit_records(unit)) for unit in units[-RECENT:][1:])
    return Job(
        title=f"extraction {folder.name}",
        state=_state(folder, len(units) == spec.num_units),
        done=sum(len(spec.unit_records(unit)) for unit in units),
        total=spec.num_records,
        unit="views",
        per_s=num_recent / passed if passed > 0 else None,
        terms={},
    )


def _state(folder: Path, whole: bool) -> str:
    if is_locked(folder):
        return "running"
    return DONE if whole else "unfinished"


def _seconds_of(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Draw values as a line of bars from their least to their greatest, means where too many."""
    if not values:
        return ""
    parts = np.array_split(np.asarray(values), min(width, len(values)))
    means = np.array([part.mean() for part in parts])
    shares = (means - means.min()) / (np.ptp(means) or 1.0)
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in shares)


def draw(jobs: Sequence[Job]) -> Group:
    """Lay out every job: its line, and a row a term with its last value and its curve."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Table] = []
    for job in jobs:
        parts.append(Text(str(job), style="bold"))
        table = Table(box=None, show_header=False, padding=(0, 2))
        for name, values in job.terms.items():
            if values:
                table.add_row(name, f"{values[-1]:.4f}", sparkline(values))
        if table.row_count:
            parts.append(table)
    return Group(*parts or [Text("nothing is running, and nothing waits to go on")])


@click.command("watch", cls=StageCommand, example="cirkd watch --every 5")
@click.option("--once", is_flag=True, help="Print one frame, as it is done without a terminal.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between frames.",
)
@json_option
def command(once: bool, every_s: float, as_json: bool) -> None:
    """Show teachers, students and stores in the making, until Ctrl-C.

    Step, rate, time left, and of each term its last value and its curve so far. What is shown is
    read from the files in artifacts/, so it may run anywhere that sees them.
    """
    if as_json:
        jobs = [{**asdict(job), "left_s": job.left_s} for job in find_jobs()]
        click.echo(json.dumps(jobs, indent=2))
        return
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once or not console.is_terminal:
        Console(width=None if console.is_terminal else 220).print(draw(list(find_jobs())))
        return
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(draw(list(find_jobs())), refresh=True)
            time.sleep(every_s)


if __name__ == "__main__":
    command()
