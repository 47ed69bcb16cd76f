"""Profiles: named sets of parameters; choosing one rewrites params.yaml."""

import hashlib
import io
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipeline.config.datasets import ExternalConfig
from pipeline.config.params import load_params, load_profile
from pipeline.config.profile import expand_students
from stages.command import PATH, StageCommand, completing, json_option, params_option
from stages.progress import say
from stages.work import KEPT
from store.files import replace_file, replacing

PROFILES = Path("profiles")


@click.group("profile")
def command() -> None:
    """List, choose and show profiles."""


@command.command("list", cls=StageCommand, example="cirkd profile list")
@params_option
@json_option
def list_profiles(params_path: Path, as_json: bool) -> None:
    """Print every profile; the chosen one carries a star."""
    chosen = load_params(params_path).profile if params_path.exists() else None
    profiles = [
        {"name": path.stem, "chosen": path.stem == chosen, "description": _first_line(path)}
        for path in sorted(PROFILES.glob("*.yaml"))
    ]
    if as_json:
        click.echo(json.dumps(profiles, indent=2))
        return
    for one in profiles:
        click.echo(f"{'*' if one['chosen'] else ' '} {one['name']:16} {one['description']}")


def _first_line(path: Path) -> str:
    return path.read_text(errors="replace").partition("\n")[0].lstrip("# ")


@command.command("use", cls=StageCommand, example="cirkd profile use camvid --root /data/CamVid")
@click.argument(
    "name",
    shell_complete=completing(lambda context: sorted(x.stem for x in PROFILES.glob("*.yaml"))),
)
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
    kept = _keep(params_path, [path.read_bytes() for path in profiles.values()])
    with replacing(params_path) as partial:
        partial.write_text(_write_out(source.read_text(), root))
        load_params(partial)
    runs = f"{len(profile.students)} students"
    say(f"params.yaml is now profile {name} ({runs}); `dvc repro` runs it")
    if kept is not None:
        say(f"the parameters before are in {kept}")


def _keep(path: Path, profiles: Collection[bytes]) -> Path | None:
    """Copy parameters that are no profile's own, under a name of their content."""
    if not path.is_file() or (content := path.read_bytes()) in profiles:
        return None
    kept = Path("artifacts", KEPT.replace("*", hashlib.sha256(content).hexdigest()[:8]))
    kept.parent.mkdir(exist_ok=True)
    replace_file(kept, content)
    return kept


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


@command.command("show", cls=StageCommand, example="cirkd profile show --json")
@params_option
@json_option
def show_profile(params_path: Path, as_json: bool) -> None:
    """Print the parameters in force as YAML, every student's training spelled out."""
    params = load_params(params_path)
    if as_json:
        click.echo(params.model_dump_json(indent=2))
    else:
        YAML().dump(params.model_dump(mode="json"), sys.stdout)


if __name__ == "__main__":
    command()
