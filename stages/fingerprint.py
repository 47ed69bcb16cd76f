"""Stage 0: the dataset's fingerprint: changed data is noticed, unchanged data costs nothing."""

from pathlib import Path

import click

from pipeline.config.params import load_params
from pipeline.datasets.prepare import fingerprint_dataset
from stages.command import StageCommand, destination_argument, params_option
from store.files import write_json


@click.command("fingerprint", cls=StageCommand)
@destination_argument
@params_option
def command(destination: Path, params_path: Path) -> None:
    """Write the fingerprint of the dataset in params.yaml to DESTINATION (JSON)."""
    dataset = load_params(params_path).dataset
    write_json(fingerprint_dataset(dataset), destination)


if __name__ == "__main__":
    command()
