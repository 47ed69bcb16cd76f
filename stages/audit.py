"""Stage 4: look at everything in the store, and compare it with the teacher."""

from pathlib import Path

import click

from pipeline.extraction.load import JobFiles
from pipeline.extraction.spot_check import spot_check_store
from stages.command import (
    StageCommand,
    destination_argument,
    job_files,
    manifest_argument,
    spots_option,
)
from stages.progress import progress_of_total
from store.audit import audit
from store.files import write_json
from store.manifest import Manifest


@click.command("audit", cls=StageCommand)
@spots_option("Records that the teacher is run on again, to measure what the encodings lost.", 16)
@job_files
@manifest_argument
@destination_argument
def command(files: JobFiles, manifest_path: Path, destination: Path, num_spots: int) -> None:
    """Audit the store behind MANIFEST and write the findings to DESTINATION (JSON).

    What the encodings lost goes to NAME.fidelity.json beside it, NAME being the manifest's.
    """
    manifest = Manifest.read(manifest_path)
    reader = manifest.open()
    job = files.load()  # before the store is read: what is wrong with it is said at once
    with progress_of_total("verify, tally", "units") as show:
        findings = audit(reader, show)
    # Apart from the findings, so that another machine's last bits never make a student stale.
    fidelity = destination.with_name(f"{manifest_path.stem}.fidelity.json")
    with progress_of_total("spot check", "passes") as show:
        found = spot_check_store(job, reader, num_spots, show)
    write_json(found, fidelity)
    write_json(findings, destination)
    click.echo(f"store {manifest.fingerprint}: whole; teacher mIoU {findings['teacher_miou']}")
    for name, value in found.items():
        click.echo(f"  {name:16} {value:.4g}")


if __name__ == "__main__":
    command()
