"""`cirkd store`: plan one, look into one, verify, repair, and move one."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.command import (
    PATH,
    StageCommand,
    ahead_option,
    complete_student,
    destination_argument,
    device_option,
    follow_extraction,
    job_files,
    json_option,
    load_job,
    manifest_argument,
    params_option,
    pick_student,
    spots_option,
    stores_option,
    workers_option,
)
from stages.progress import say

if TYPE_CHECKING:
    from pipeline.extraction.load import JobFiles


@click.group("store")
def command() -> None:
    """Plan a store, look into one, verify, repair, and move one."""


def show_sizes(raw: dict[str, int], stored: dict[str, int]) -> None:
    """Print a line an array: raw and stored megabytes and their ratio."""
    for name, size in stored.items():
        ratio = f"{size / raw[name]:.2f}" if raw[name] else "-"
        click.echo(f"  {name:20} {raw[name] / 1e6:10.2f} MB  {size / 1e6:10.2f} MB  {ratio}")
    total = sum(stored.values())
    click.echo(f"  {'total':20} {sum(raw.values()) / 1e6:10.2f} MB  {total / 1e6:10.2f} MB")


@command.command("plan", cls=StageCommand, example="cirkd store plan r18_cirkd")
@click.argument("run", shell_complete=complete_student)
@params_option
@device_option
@workers_option
@ahead_option
@json_option
def plan_store(
    run: str, params_path: Path, device_name: str, num_workers: int, ahead_bytes: int, as_json: bool
) -> None:
    """Measure a sample and say what the store of params.yaml will cost; RUN is a student."""
    import numpy as np

    from pipeline.benchmarks.store_plan import plan
    from pipeline.config.params import load_params
    from pipeline.datasets.index import Index
    from pipeline.extraction import job
    from pipeline.extraction.basis import with_basis
    from pipeline.models.teacher import build_teacher
    from pipeline.runtime.device import pick_device

    params = load_params(params_path)
    student = pick_student(params, run)
    index = Index.read(Path("artifacts/datasets") / params.dataset.name / "index.json")
    device = pick_device(device_name)
    settings = params.teacher
    if not Path(settings.checkpoint or "").is_file():
        # Any weights take the same time; what compresses differs, so trained ones are more exact.
        settings = settings.model_copy(update={"source": "train", "backbone": "none"})
    teacher = build_teacher(settings, index.class_names).to(device).eval()
    spec = job.plan_store(index, params.store, teacher, "planned", device)
    extraction = job.Extraction(index, teacher, params.store, spec, device)
    if (subspace := params.store.encodings.subspace) is not None:
        if subspace.rank is None:
            raise ValueError(
                "store.encodings.features.max_kl: the rank is known after the teacher's first pass "
                "alone; plan with a rank, or see `cirkd benchmark subspace`"
            )
        # Any basis takes the same time; what compresses differs.
        basis = np.eye(spec.feature_channels, subspace.rank, dtype=np.float32)
        extraction = with_basis(extraction, basis)
    found = plan(extraction, student, Path("artifacts/stores"), num_workers, ahead_bytes)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(f"{found.num_records} records in {found.num_files} files; raw, stored, ratio:")
    show_sizes(found.raw_bytes, found.stored_bytes)
    click.echo(f"extraction      {found.extract_s:.0f} s on this machine")
    click.echo(
        f"student's step  {found.step_s:.3f} s: reads {found.read_bytes_per_s / 1e6:.1f} MB/s"
    )
    click.echo(
        f"its batches     at most {found.in_flight_bytes / 1e6:.1f} MB of memory on their way"
    )
    room = "has room" if found.fits else "has NOT enough room"
    click.echo(f"disk            {found.free_bytes / 1e9:.1f} GB free: {room}")


@command.command(
    "adopt",
    cls=StageCommand,
    example="cirkd store adopt s3://bucket/store artifacts/manifests/scenes.json",
)
@click.argument("path")
@manifest_argument
@json_option
def adopt_store(path: str, manifest_path: Path, as_json: bool) -> None:
    """Write the MANIFEST of a finished store made elsewhere, by which every command finds it.

    PATH is its folder, its URL (s3://bucket/store, https://..., with credentials and endpoint in
    the environment) or its HDF5 file. `cirkd store verify` then reads every byte.
    """
    from store.manifest import Manifest
    from store.reader import open_store

    reader = open_store(path)
    manifest = Manifest.of(reader.path, reader.spec, reader.journal)
    manifest.write(manifest_path)
    if as_json:
        click.echo(json.dumps(asdict(manifest), indent=2))
    else:
        say(f"store {manifest.fingerprint}: {manifest.num_records} records")


@command.command(
    "info",
    cls=StageCommand,
    example="cirkd store info artifacts/manifests/scenes.json --figure record.png",
)
@manifest_argument
@click.option("--figure", "--picture", "figure", type=PATH, help="PNG of one record.")
@click.option(
    "--record",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which record to draw.",
)
@json_option
def show_store(manifest_path: Path, figure: Path | None, record: int, as_json: bool) -> None:
    """Say what lies in the store behind MANIFEST, and how well each array compressed."""
    from store.audit import sizes
    from store.manifest import Manifest

    manifest = Manifest.read(manifest_path)
    reader = manifest.open()
    if figure is not None:
        from pipeline.report.record_figure import draw_record
        from store.files import replacing

        with replacing(figure) as partial:
            draw_record(reader, record, partial)
    found = {**asdict(manifest), "spec": reader.spec.to_dict(), **sizes(reader)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    spec = reader.spec
    click.echo(f"{manifest.path}: {len(reader)} records, {spec.num_units} units")
    click.echo(f"identity: {json.dumps(dict(spec.identity), indent=2)}")
    click.echo(f"made with: {json.dumps(dict(spec.provenance), indent=2)}")
    arrays = found["arrays"]
    raw = {name: one["raw_bytes"] for name, one in arrays.items()}
    show_sizes(raw, {name: one["stored_bytes"] for name, one in arrays.items()})


@command.command(
    "verify",
    cls=StageCommand,
    example="cirkd store verify artifacts/manifests/scenes.json",
)
@manifest_argument
@spots_option("Also run the teacher again on that many records; needs --index and --teacher.")
@click.option("--index", "index_path", type=PATH, help="Of the dataset, for --spot.")
@click.option("--teacher", "teacher_path", type=PATH, help="Its file, for --spot.")
@params_option
@device_option
@json_option
def verify_store(
    manifest_path: Path,
    num_spots: int | None,
    index_path: Path | None,
    teacher_path: Path | None,
    params_path: Path,
    device_name: str,
    as_json: bool,
) -> None:
    """Read every byte of the store behind MANIFEST; exit code 1 if any is not as it was written."""
    from store.manifest import Manifest
    from store.verify import verify

    if len({num_spots is None, index_path is None, teacher_path is None}) > 1:
        raise click.UsageError("--spot runs the teacher: --spot, --index and --teacher go together")
    manifest = Manifest.read(manifest_path)
    findings = verify(manifest.path, digest=manifest.digest)
    fidelity = None
    if index_path and teacher_path and num_spots is not None and not findings:
        from pipeline.extraction.load import JobFiles
        from pipeline.extraction.spot_check import spot_check_store

        reader = manifest.open()
        files = JobFiles(index_path, teacher_path, params_path, device_name)
        fidelity = spot_check_store(load_job(files, reader.spec), reader, num_spots)
    if as_json:
        listed = [one.to_dict() for one in findings]
        click.echo(json.dumps({"findings": listed, "fidelity": fidelity}, indent=2))
    else:
        for one in findings:
            click.echo(f"{one.file}: {one.what}" + (f" (key {one.key})" if one.key else ""))
        click.echo(f"{len(findings)} findings" if findings else "whole")
        for name, value in (fidelity or {}).items():
            click.echo(f"  {name:16} {value:.3g}")
    raise SystemExit(1 if findings else 0)


@command.command(
    "repair",
    cls=StageCommand,
    example="cirkd store repair artifacts/datasets/scenes/index.json "
    "artifacts/teachers/scenes.pt artifacts/manifests/scenes.json",
)
@job_files
@manifest_argument
def repair_store(files: JobFiles, manifest_path: Path) -> None:
    """Extract the damaged units of the store behind MANIFEST again, and only those."""
    from store.errors import StoreError
    from store.layout import LocalFiles, read_spec
    from store.manifest import Manifest
    from store.verify import damaged_units, verify
    from store.writer import Writer, local_folder

    manifest = Manifest.read(manifest_path)
    folder = local_folder(manifest.path)
    stored = None
    with suppress(StoreError):  # its metadata is among what is repaired
        stored = read_spec(LocalFiles(folder))
    job = load_job(files, stored)
    with Writer.open(folder, job.spec):
        pass  # it mends the metadata, without which no unit can be verified
    units = damaged_units(verify(folder))
    repaired = follow_extraction(job, folder, revoked=units)
    say(f"{len(units)} units extracted again")
    left = verify(folder)
    if left:
        raise ValueError(
            f"{manifest.path}: {len(left)} findings left: {left[0].file}: {left[0].what}; remove "
            "what is not of this store, or else the store, and run `dvc repro -f -s extract`"
        )
    if repaired.digest != manifest.digest:
        raise ValueError(
            f"{manifest.path}: whole, but not as it was: another device or other versions made "
            f"these units; expected digest {manifest.digest}, found {repaired.digest}; `dvc repro "
            "-f -s extract` writes the manifest of this store"
        )


@command.command(
    "to-hdf5",
    cls=StageCommand,
    example="cirkd store to-hdf5 artifacts/manifests/scenes.json scenes.h5",
)
@manifest_argument
@destination_argument
def export_hdf5(manifest_path: Path, destination: Path) -> None:
    """Copy the store behind MANIFEST into one HDF5 file."""
    from store.hdf5 import to_hdf5
    from store.manifest import Manifest

    to_hdf5(Manifest.read(manifest_path).path, destination)
    say(f"{destination}: {destination.stat().st_size / 1e6:.2f} MB")


@command.command(
    "from-hdf5",
    cls=StageCommand,
    example="cirkd store from-hdf5 scenes.h5 artifacts/manifests/scenes.json",
)
@click.argument("source", type=PATH)
@manifest_argument
@stores_option()
def import_hdf5(source: Path, manifest_path: Path, stores: Path) -> None:
    """Make a store of an HDF5 file, under its fingerprint, and write its MANIFEST."""
    from store.hdf5 import from_hdf5
    from store.reader import open_store

    fingerprint = open_store(source).spec.fingerprint
    manifest = from_hdf5(source, stores / fingerprint)
    manifest.write(manifest_path)
    say(f"store {fingerprint}: {manifest.num_records} records")


if __name__ == "__main__":
    command()
