"""Profiles: named sets of parameters; choosing one rewrites params.yaml."""

from pathlib import Path

import click

from pipeline.config.datasets import ExternalConfig
from pipeline.config.params import load_params
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
    load_params(source)
    with replacing(params_path) as partial:
        partial.write_text(source.read_text() if root is None else _with_root(source, root))
        load_params(partial)
    click.echo(f"params.yaml is now profile {name}; `dvc repro` runs it")


def _with_root(source: Path, root: Path) -> str:
    """The profile's text with another dataset.root; comments stay."""
    import io

    from ruamel.yaml import YAML

    yaml = YAML()
    raw = yaml.load(source)
    if not isinstance(load_params(source).dataset, ExternalConfig):
        raise ValueError(f"--root: profile {source.stem} generates its dataset and needs no folder")
    raw["dataset"]["root"] = str(root.resolve())
    text = io.StringIO()
    yaml.dump(raw, text)
    return text.getvalue()


@command.command("show", cls=StageCommand)
@params_option
def show_profile(params_path: Path) -> None:
    """Print the parameters in force, every student's training spelled out."""
    click.echo(load_params(params_path).model_dump_json(indent=2))


if __name__ == "__main__":
    command()
