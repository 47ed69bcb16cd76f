"""Profiles: named sets of parameters; choosing one rewrites params.yaml."""

import io
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipeline.config.datasets import ExternalConfig
from pipeline.config.params import load_params, load_profile
from pipeline.config.profile import expand_students
from stages.command import PATH, StageCommand, params_option
from store.files import replacing

PROFILES = Path("profiles")


@click.group("profile")
def command() -> None:
    """List, choose and show profiles."""


@command.command("list", cls=StageCommand)
@params_option
def list_profiles(params_path: Path) -> None:
    """Print every profile; the chosen one carries a star."""
    chosen = load_params(params_path).profile if params_path.exists() else None
    for path in sorted(PROFILES.glob("*.yaml")):
        first_line = path.read_text(errors="replace").partition("\n")[0].lstrip("# ")
        click.echo(f"{'*' if path.stem == chosen else ' '} {path.stem:16} {first_line}")


@command.command("use", cls=StageCommand)
@click.argument("name")
@click.option("--root", type=PATH, help="Folder of the dataset.")
@params_option
def use_profile(name: str, root: Path | None, params_path: Path) -> None:
    """Make the profile NAME the parameters of the pipeline."""
    profiles = {path.stem: path for path in sorted(PROFILES.glob("*.yaml"))}
    if name not in profiles:
        known = ", ".join(profiles) or "none"
        raise FileNotFoundError(f"{PROFILES / name}.yaml: no such profile; expected one of {known}")
    source = profiles[name]
    profile = load_profile(source)
    if root is not None and not isinstance(profile.dataset, ExternalConfig):
        raise ValueError(f"--root: profile {name} generates its dataset and needs no folder")
    with replacing(params_path) as partial:
        partial.write_text(_write_out(source.read_text(), root))
        load_params(partial)
    runs = f"{len(profile.students)} students"
    click.echo(f"params.yaml is now profile {name} ({runs}); `dvc repro` runs it")


def _write_out(text: str, root: Path | None) -> str:
    """Return a profile's text with every run by its name, and another dataset.root.

    What needs no change, comments among it, stays as it is.
    """
    yaml = YAML()
    yaml.width = 200
    yaml.representer.ignore_aliases = lambda value: True
    raw = yaml.load(text)
    runs = expand_students(raw["students"])
    if root is None and runs.keys() == raw["students"].keys():
        return text
    if root is not None:
        raw["dataset"]["root"] = str(root.resolve())
    if runs.keys() != raw["students"].keys():
        raw["students"] = {run: _in_one_line(student) for run, student in runs.items()}
    written = io.StringIO()
    yaml.dump(raw, written)
    return written.getvalue()


def _in_one_line(student: dict[str, Any]) -> CommentedMap:
    line = CommentedMap(student)
    line.fa.set_flow_style()
    return line


@command.command("show", cls=StageCommand)
@params_option
def show_profile(params_path: Path) -> None:
    """Print the parameters in force, every student's training spelled out."""
    click.echo(load_params(params_path).model_dump_json(indent=2))


if __name__ == "__main__":
    command()
