"""Stage 1: check the dataset, or generate it, and write its index."""

import json
from pathlib import Path

import click

from pipeline.config.base import validate
from pipeline.config.params import load_params
from pipeline.datasets.prepare import prepare_dataset
from stages.command import PATH, StageCommand, destination_argument, params_option
from stages.progress import progress_of_total
from store.files import reading


@click.command("prepare", cls=StageCommand)
@click.argument("fingerprint", type=PATH)
@destination_argument
@params_option
def command(fingerprint: Path, destination: Path, params_path: Path) -> None:
    """Check the dataset behind FINGERPRINT and write index.json and pixels/ into DESTINATION."""
    dataset = load_params(params_path).dataset
    with reading(fingerprint, "the fingerprint of a dataset", "run `cirkd fingerprint` again"):
        known = validate(str, json.loads(fingerprint.read_bytes())["fingerprint"])
    pixels = destination / "pixels"
    with progress_of_total("check", "samples") as checked:
        index = prepare_dataset(dataset, known, pixels, checked, notice=click.echo)
    index.write(destination / "index.json")
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in index.splits.items())
    click.echo(f"{index.name}: {counts}; {index.num_classes} classes")


if __name__ == "__main__":
    command()
