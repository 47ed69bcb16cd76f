"""One progress line: done, total, rate, time left, a note; plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

PLAIN_EVERY_S = 10.0


class Advance(Protocol):
    """Tell that `count` more are done."""

    def __call__(self, count: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress on stderr.

    Args:
        title: what is being done.
        total: how many there are.
        unit: what is counted, for the rate.
        done: how many were done before (resume); left out of the rate.
    """
    start = time.monotonic()
    finished = done
    console = Console(stderr=True)

    def rate() -> float:
        return (finished - done) / max(time.monotonic() - start, 1e-9)

    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total, completed=done, note="")

            def advance(count: int = 1, note: str = "") -> None:
                nonlocal finished
                finished += count
                bar.update(task, advance=count, note=f"{rate():.2f} {unit}/s  {note}")

            yield advance
        return

    last = start

    def print_line(count: int = 1, note: str = "") -> None:
        nonlocal finished, last
        finished += count
        now = time.monotonic()
        if now - last < PLAIN_EVERY_S and finished < total:
            return
        last = now
        left = (total - finished) / max(rate(), 1e-9)
        click.echo(
            f"{title} {finished}/{total}  {rate():.2f} {unit}/s  {left:.0f} s left  {note}",
            err=True,
        )

    yield print_line
