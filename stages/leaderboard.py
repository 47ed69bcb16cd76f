"""The leaderboard: every student of every profile that was trained and measured here."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.command import PATH, StageCommand

if TYPE_CHECKING:
    from pipeline.report.leaderboard import Entry


@click.command("leaderboard", cls=StageCommand)
@click.option(
    "--artifacts",
    type=PATH,
    default=Path("artifacts"),
    show_default=True,
    help="Where results lie.",
)
@click.option("--csv", "form", flag_value="csv", help="Print CSV: every field as it is.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a table of Markdown.")
@click.option("--json", "form", flag_value="json", help="Print JSON: every field as it is.")
def command(artifacts: Path, form: str | None) -> None:
    """Print every student of every profile: mIoU, gain over cross-entropy alone, and its cost.

    Runs equal but for the seed are one row. A gain is over the same network and seeds trained on
    labels alone; where its 95 % interval holds zero, it is within the noise, and marked so.

    Example: cirkd leaderboard --markdown > leaderboard.md
    """
    from pipeline.report.leaderboard import as_csv, as_json, as_markdown, read_leaderboard

    entries = read_leaderboard(artifacts)
    if not entries and form != "json":
        raise FileNotFoundError(f"{artifacts / 'profiles'}: no evaluated student; run `dvc repro`")
    if form is None:
        _print_table(entries)
    else:
        write = {"csv": as_csv, "markdown": as_markdown, "json": as_json}[form]
        click.echo(write(entries), nl=False)


def _print_table(entries: "tuple[Entry, ...]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from pipeline.report.leaderboard import COLUMNS, table

    shown = Table(box=SIMPLE_HEAD)
    for column in COLUMNS:
        shown.add_column(column, overflow="fold")
    for entry, row in zip(entries, table(entries), strict=True):
        faint = entry.gain is not None and not entry.gain_is_certain
        shown.add_row(*row, style="dim" if faint else None)
    console = Console()
    # A file or a pipe has no width: nothing is to be cut there.
    Console(width=None if console.is_terminal else 220).print(shown)
