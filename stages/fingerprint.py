"""Stage 0: fingerprints of what lies outside: changed data is noticed, unchanged costs nothing."""

import json
from pathlib import Path

import click

from pipeline.config.params import load_params
from pipeline.config.weights import hash_weights_files
from pipeline.datasets.prepare import fingerprint_dataset
from stages.command import PATH, StageCommand, destination_argument, json_option, params_option
from stages.progress import say
from store.files import write_json


@click.command(
    "fingerprint",
    cls=StageCommand,
    example="cirkd fingerprint artifacts/fingerprint.json artifacts/weights.json",
)
@destination_argument
@click.argument("weights", type=PATH, required=False)
@params_option
@json_option
def command(destination: Path, weights: Path | None, params_path: Path, as_json: bool) -> None:
    """Write the fingerprint of the dataset in params.yaml to DESTINATION (JSON).

    WEIGHTS, where it is given, gets a hash of each file of weights that params.yaml names.
    """
    params = load_params(params_path)
    if weights is not None:
        write_json(hash_weights_files(params), weights)
    found = fingerprint_dataset(params.dataset)
    write_json(found, destination)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        say(f"dataset {params.dataset.name}: fingerprint {found['fingerprint']}")


if __name__ == "__main__":
    command()
