"""What every command shares: errors as messages, common options, interruption."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from store.errors import StoreError

EXIT_INTERRUPTED = 3
SLOW_FROM = 1.2
"""Half precision counts as slower from here: below, it may be the measurement's noise."""

params_option = click.option(
    "--params",
    "params_path",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="Parameters of the whole pipeline.",
)
device_option = click.option(
    "--device",
    "device_name",
    default="auto",
    envvar="CIRKD_DEVICE",
    show_envvar=True,
    show_default=True,
    help="cpu, cuda, cuda:N; auto takes a GPU where there is one.",
)
workers_option = click.option(
    "--workers",
    "num_workers",
    type=click.IntRange(min=0),
    default=1,
    envvar="CIRKD_WORKERS",
    show_envvar=True,
    show_default=True,
    help="Processes that read ahead; never changes a result.",
)
ahead_option = click.option(
    "--ahead-mb",
    type=click.IntRange(min=1),
    default=2000,
    envvar="CIRKD_AHEAD_MB",
    show_envvar=True,
    show_default=True,
    help="Host memory that batches may take on their way, in MB; never changes a result.",
)


class StageCommand(click.Command):
    """A command whose user mistakes end as a message and exit code 1, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; CIRKD_TRACEBACK=1 keeps the traceback."""
        try:
            return super().invoke(ctx)
        except (ValueError, IndexError, OSError, StoreError) as error:
            if os.environ.get("CIRKD_TRACEBACK"):
                raise
            raise click.ClickException(str(error)) from error


class Interruption:
    """Turns SIGTERM and SIGINT into a flag, so that the work in hand is finished and kept."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interruption:
        self._before = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def exit_if_requested(self, what_is_kept: str) -> None:
        """End with exit code 3, which DVC takes for "not done"."""
        if self.requested:
            self.exit(what_is_kept)

    @staticmethod
    def exit(what_is_kept: str) -> NoReturn:
        """End with exit code 3 now."""
        click.echo(f"interrupted: {what_is_kept}; run the same command to go on", err=True)
        raise SystemExit(EXIT_INTERRUPTED)


def measure_precision(precision: str, device: Any, setting: str) -> float | None:
    """Say on stderr if half precision is slower than float32 here, before time is spent in it.

    Args:
        precision: what `setting` says; nothing is measured for float32.
        device: to measure on.
        setting: its name in params.yaml.

    Returns:
        How many times as long half precision takes, for the log; None for float32.
    """
    if precision == "float32":
        return None
    from pipeline.runtime.precision import half_precision_cost

    cost = round(half_precision_cost(device, precision), 2)
    if cost > SLOW_FROM:
        click.echo(
            f"{setting}: {precision} takes {cost:.1f} times as long as float32 on this "
            f"{device.type}, which lacks the instructions for it; set {setting}: float32",
            err=True,
        )
    return cost


def work_folder(kind: str, identity: object) -> Path:
    """Where an unfinished stage keeps its checkpoint, named by all that shapes its result."""
    import hashlib
    import json

    text = json.dumps(identity, sort_keys=True)
    return Path("artifacts/work") / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
