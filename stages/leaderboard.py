"""The leaderboard: every student of every profile that was trained and measured here."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.command import PATH, StageCommand, print_table

if TYPE_CHECKING:
    from pipeline.report.leaderboard import Entry


@click.command(
    "leaderboard",
    cls=StageCommand,
    example="cirkd leaderboard --markdown > leaderboard.md",
)
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
    from pipeline.report.leaderboard import COLUMNS, table

    uncertain = {
        number
        for number, entry in enumerate(entries)
        if entry.gain is not None and not entry.gain_is_certain
    }
    print_table(COLUMNS, table(entries), faint=uncertain)


if __name__ == "__main__":
    command()
