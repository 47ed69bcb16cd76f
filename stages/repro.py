"""`dvc repro` with what it takes for granted: this Python first on PATH, and a DVC project."""

import subprocess

import click

from stages.command import EXIT_INTERRUPTED, Interruption, StageCommand, prepare_dvc
from stages.progress import is_quiet

PASS_ON = {"ignore_unknown_options": True}
EXIT_CODES = {0: 0, 252: EXIT_INTERRUPTED, 254: click.UsageError.exit_code}
"""DVC's, and what they are of ours; any other is 1, of a stage that was interrupted, too."""


@click.command(
    "repro",
    cls=StageCommand,
    context_settings=PASS_ON,
    example="cirkd repro --force --single-item report",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the pipeline; ARGUMENTS go to `dvc repro` as they are (`dvc repro --help` has them).

    What is up to date is skipped, and a stage that was interrupted goes on where it stopped.
    """
    dvc, environment = prepare_dvc()
    # DVC has errors on stderr, which its own --quiet would leave out.
    output = subprocess.DEVNULL if is_quiet() else None
    with Interruption() as stop:  # a terminal tells DVC and its stage, too, which keeps its work
        done = subprocess.run([*dvc, "repro", *arguments], env=environment, stdout=output)
    code = EXIT_CODES.get(done.returncode, 1)
    raise SystemExit(EXIT_INTERRUPTED if code and stop.requested else code)


if __name__ == "__main__":
    command()
