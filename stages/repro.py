"""`dvc repro` with what it takes for granted: this Python first on PATH, and a DVC project."""

import os
import subprocess
import sys
from pathlib import Path

import click

from stages.command import StageCommand

PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("repro", cls=StageCommand, context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the pipeline; ARGUMENTS go to `dvc repro` as they are."""
    dvc, environment = prepare_dvc()
    raise SystemExit(subprocess.run([*dvc, "repro", *arguments], env=environment).returncode)


def prepare_dvc() -> tuple[list[str], dict[str, str]]:
    """The command and the environment that run dvc here, with git or without."""
    if not Path("dvc.yaml").exists():
        raise FileNotFoundError(f"{Path.cwd()}: no dvc.yaml here; run in the project's root")
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    dvc = [sys.executable, "-m", "dvc"]
    if not _in_git():
        # An unpacked archive: DVC refuses to work without git unless told so.
        subprocess.run(
            [*dvc, "config", "--local", "core.no_scm", "true"], env=environment, check=True
        )
    return dvc, environment


def _in_git() -> bool:
    return any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))


if __name__ == "__main__":
    command()
