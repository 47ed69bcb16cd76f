"""Stage 4: look at everything in the store, and compare it with the teacher."""

from pathlib import Path

import click
import numpy as np

from pipeline.extraction.load import JobFiles
from pipeline.extraction.spot_check import spot_check
from pipeline.runtime.rng import seed_sequence, torch_generator
from stages.command import StageCommand, device_option, params_option
from store.audit import audit
from store.errors import StoreMismatchError
from store.files import write_json
from store.manifest import Manifest
from store.reader import Reader, open_store


@click.command("audit", cls=StageCommand)
@click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("teacher_path", metavar="TEACHER", type=click.Path(path_type=Path))
@click.argument("manifest_path", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--spot",
    "num_spots",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Records that the teacher is run on again, to measure what the encodings lost.",
)
@params_option
@device_option
def command(
    index_path: Path,
    teacher_path: Path,
    manifest_path: Path,
    destination: Path,
    num_spots: int,
    params_path: Path,
    device_name: str,
) -> None:
    """Audit the store behind MANIFEST and write the findings to DESTINATION (JSON).

    What the encodings lost goes to NAME.fidelity.json beside it, NAME being the manifest's.
    """
    manifest = Manifest.read(manifest_path)
    reader = open_store(manifest.path, expected=manifest.fingerprint)
    findings = audit(reader)
    files = JobFiles(index_path, teacher_path, params_path, device_name)
    # Apart from the findings, so that another machine's last bits never make a student stale.
    fidelity = destination.with_name(f"{manifest_path.stem}.fidelity.json")
    found = spot(files, reader, num_spots)
    write_json(found, fidelity)
    write_json(findings, destination)
    click.echo(f"store {manifest.fingerprint}: whole; teacher mIoU {findings['teacher_miou']}")
    for name, value in found.items():
        click.echo(f"  {name:16} {value:.4g}")


def spot(files: JobFiles, reader: Reader, num_spots: int) -> dict[str, float]:
    """Run the teacher again on some records, drawn from the store's own seed."""
    job = files.load()
    if job.spec.fingerprint != reader.spec.fingerprint:
        raise StoreMismatchError(
            "another store",
            where=str(reader.path),
            expected=job.spec.fingerprint,
            found=reader.spec.fingerprint,
            hint="give the params, teacher and index that the store was made with",
        )
    rng = np.random.default_rng(seed_sequence(job.settings.seed, "spot"))
    records = rng.choice(len(reader), min(num_spots, len(reader)), replace=False)
    generator = torch_generator(job.settings.seed, "spot")
    return spot_check(job, reader, sorted(records.tolist()), generator)


if __name__ == "__main__":
    command()
