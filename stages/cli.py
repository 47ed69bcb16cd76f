"""`cirkd`: every command by name, each module imported only when its command is called."""

import importlib
import os
from collections.abc import Sequence
from functools import partial

import click

from stages.command import DEBUG
from stages.progress import QUIET

# name -> one line for `cirkd --help`; the command itself is `stages.NAME.command`.
COMMANDS = {
    "repro": "Run the whole pipeline (dvc repro), also without git.",
    "profile": "List, choose and show the sets of parameters.",
    "fingerprint": "Stage 0: notice changed data.",
    "prepare": "Stage 1: check or generate the dataset, and index it.",
    "teacher": "Stage 2: get the teacher and measure it.",
    "extract": "Stage 3: the teacher once over every view, into the store.",
    "audit": "Stage 4: look at everything in the store.",
    "train": "Stage 5: train one student from the store alone.",
    "evaluate": "Stage 6: measure one student at full size.",
    "report": "Stage 7: everything measured, on one page.",
    "watch": "Trainings and stores in the making: step, rate, time left, curves.",
    "predict": "Label files, colours and overlays of any images.",
    "export": "A student as ONNX, compared with torch.",
    "pack": "A student to share: safetensors, configuration, model card.",
    "leaderboard": "Every student of every profile, its gain and its cost.",
    "clean": "List what nothing refers to any more, and remove it.",
    "benchmark": "Measure losses, store and extraction on this machine.",
    "store": "Plan a store, look into one, verify, repair, and move one.",
}


class Commands(click.Group):
    """A group that knows its commands' names without importing torch for each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order of the route."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"stages.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from COMMANDS, so that help answers at once."""
        rows: Sequence[tuple[str, str]] = list(COMMANDS.items())
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="offline-cirkd")
@click.option("--debug", is_flag=True, help=f"Errors keep their traceback; as {DEBUG}=1 does.")
@click.option(
    "--quiet",
    is_flag=True,
    help=f"No progress, no word on what was done; warnings, errors and facts stay; as {QUIET}=1.",
)
@click.pass_context
def main(context: click.Context, debug: bool, quiet: bool) -> None:
    """One segmentation teacher, run once; many students distilled from its stored targets."""
    for variable, chosen in ((DEBUG, debug), (QUIET, quiet)):
        if chosen and not os.environ.get(variable):
            os.environ[variable] = "1"  # the stages that DVC starts inherit it
            context.call_on_close(partial(os.environ.pop, variable))


if __name__ == "__main__":
    main()
