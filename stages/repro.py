"""`dvc repro` with what it takes for granted: this Python first on PATH, and a DVC project."""

import subprocess

import click

from stages.command import StageCommand, prepare_dvc

PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("repro", cls=StageCommand, context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the pipeline; ARGUMENTS go to `dvc repro` as they are."""
    dvc, environment = prepare_dvc()
    raise SystemExit(subprocess.run([*dvc, "repro", *arguments], env=environment).returncode)


if __name__ == "__main__":
    command()
