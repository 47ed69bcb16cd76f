"""Stage 4: look at everything in the store, and fail if it is not whole."""

from pathlib import Path

import click

from stages.command import StageCommand
from store.audit import audit
from store.files import write_json
from store.manifest import Manifest
from store.reader import open_store


@click.command("audit", cls=StageCommand)
@click.argument("manifest_path", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
def command(manifest_path: Path, destination: Path) -> None:
    """Audit the store behind MANIFEST and write the findings to DESTINATION (JSON)."""
    manifest = Manifest.read(manifest_path)
    findings = audit(open_store(manifest.path, expected=manifest.fingerprint))
    write_json(findings, destination)
    click.echo(f"store {manifest.fingerprint}: whole; teacher mIoU {findings['teacher_miou']:.4f}")


if __name__ == "__main__":
    command()
