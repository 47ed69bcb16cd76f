"""Stage 4: look at everything in the store, and compare it with the teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.command import (
    StageCommand,
    destination_argument,
    job_files,
    json_option,
    load_job,
    manifest_argument,
    spots_option,
)
from stages.progress import progress_of_total, say
from store.files import write_json

if TYPE_CHECKING:
    from pipeline.extraction.load import JobFiles


@click.command(
    "audit",
    cls=StageCommand,
    example="cirkd audit artifacts/datasets/scenes/index.json artifacts/teachers/scenes.pt "
    "artifacts/manifests/scenes.json artifacts/manifests/scenes.audit.json",
)
@spots_option("Records that the teacher is run on again, to measure what the encodings lost.", 16)
@job_files
@manifest_argument
@destination_argument
@json_option
def command(
    files: JobFiles, manifest_path: Path, destination: Path, num_spots: int, as_json: bool
) -> None:
    """Audit the store behind MANIFEST and write the findings to DESTINATION (JSON).

    What the encodings lost goes to NAME.fidelity.json beside it, NAME being the manifest's.
    """
    from pipeline.extraction.spot_check import spot_check_store
    from store.audit import audit
    from store.manifest import Manifest

    manifest = Manifest.read(manifest_path)
    reader = manifest.open()
    # Before the store is read: what is wrong with it is said at once.
    job = load_job(files, reader.spec)
    with progress_of_total("verify, tally", "units") as show:
        findings = audit(reader, show)
    # Apart from the findings, so that another machine's last bits never make a student stale.
    fidelity = destination.with_name(f"{manifest_path.stem}.fidelity.json")
    with progress_of_total("spot check", "passes") as show:
        found = spot_check_store(job, reader, num_spots, show)
    write_json(found, fidelity)
    write_json(findings, destination)
    if as_json:
        click.echo(json.dumps({**findings, "fidelity": found}, indent=2))
        return
    say(f"store {manifest.fingerprint}: whole; teacher mIoU {findings['teacher_miou']}")
    for name, value in found.items():
        say(f"  {name:16} {value:.4g}")


if __name__ == "__main__":
    command()
