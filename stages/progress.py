"""One progress line: done, total, rate, time left, a note; plain lines without a terminal."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import click

QUIET = "CIRKD_QUIET"
PLAIN_EVERY_S = 10.0
WINDOW_S = 60.0
"""How far back the rate looks; a slow step that stays alone in the window still counts."""


def is_quiet() -> bool:
    """Tell whether nothing is to be said but facts that were asked for, warnings and errors."""
    return bool(os.environ.get(QUIET))


def say(text: object) -> None:
    """Print what was done, unless quiet."""
    if not is_quiet():
        click.echo(text)


class Advance(Protocol):
    """Tell that `count` more are done."""

    def __call__(self, count: int = 1, note: str = "") -> None: ...


class Show(Protocol):
    """Tell that `done` of `total` are done."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class MovingRate:
    """Rate and time left over the last WINDOW_S seconds.

    The first item only starts the clock: what it warms up (kernels, caches) predicts nothing.
    """

    def __init__(self, total: int, done: int, unit: str) -> None:
        self._total, self._unit = total, unit
        self._done = done
        self._seen: deque[tuple[float, int]] = deque()

    def advance(self, count: int) -> None:
        """Count `count` more, now."""
        self._done += count
        self._seen.append((time.monotonic(), self._done))
        while len(self._seen) > 2 and self._seen[-1][0] - self._seen[1][0] > WINDOW_S:
            self._seen.popleft()

    @property
    def done(self) -> int:
        """Return how many are done, those before a resume included."""
        return self._done

    def __str__(self) -> str:
        """`0.52 steps/s  70 s left`; nothing before there are two items to go by."""
        if len(self._seen) < 2:
            return ""
        (start, before), (end, done) = self._seen[0], self._seen[-1]
        rate = (done - before) / max(end - start, 1e-9)
        if not rate:  # told twice of the same: nothing to go by
            return ""
        left = (self._total - done) / rate
        return f"{rate:.2f} {self._unit}/s  {left:.0f} s left"


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress on stderr.

    Args:
        title: what is being done.
        total: how many there are.
        unit: what is counted, for the rate.
        done: how many were done before (resume); left out of the rate.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if is_quiet():
        yield lambda count=1, note="": None
        return
    rate = MovingRate(total, done, unit)
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_lines(title, total, rate)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(count: int = 1, note: str = "") -> None:
            rate.advance(count)
            bar.update(task, advance=count, note=f"{rate}  {note}")

        yield advance


def _print_lines(title: str, total: int, rate: MovingRate) -> Advance:
    """Print a line at the end, and before it every PLAIN_EVERY_S seconds at the most."""
    last = time.monotonic()

    def print_line(count: int = 1, note: str = "") -> None:
        nonlocal last
        rate.advance(count)
        now = time.monotonic()
        if now - last < PLAIN_EVERY_S and rate.done < total:
            return
        last = now
        parts = (f"{title} {rate.done}/{total}", str(rate), note)
        click.echo("  ".join(filter(None, parts)), err=True)

    return print_line


@contextmanager
def progress_of_total(title: str, unit: str) -> Iterator[Show]:
    """Show progress whose total comes with each call; the first tells what was done before."""
    advance: Advance | None = None
    before = 0
    with ExitStack() as stack:

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal advance, before
            if advance is None:
                if done and not is_quiet():
                    left = "nothing is left to do" if done == total else f"{total - done} are left"
                    click.echo(f"{title}: {done} of {total} {unit} are there; {left}", err=True)
                advance = stack.enter_context(progress(title, total, unit, done))
            else:
                advance(done - before, note)
            before = done

        yield show
