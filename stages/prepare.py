"""Stage 1: check the dataset, or generate it, and write its index."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from pipeline.config.base import validate
from pipeline.config.params import Params, load_params
from pipeline.datasets.checking import check_listing
from pipeline.datasets.contact_sheet import draw_contact_sheet
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.prepare import find_remedy, list_dataset, prepare_dataset
from pipeline.datasets.statistics import describe_splits, write_lines
from stages.command import PATH, StageCommand, json_option, params_option
from stages.progress import progress_of_total, say
from store.files import reading


@click.command("prepare", cls=StageCommand, example="cirkd prepare --check --sheet sheet.png")
@click.argument("fingerprint", type=PATH, required=False)
@click.argument("destination", type=PATH, required=False)
@params_option
@click.option("--check", is_flag=True, help="Describe the dataset instead; no arguments.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --check: the contact sheet, a PNG; by default NAME-check.png, NAME the dataset's.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="With --check: which images the sheet shows.",
)
@json_option
def command(
    fingerprint: Path | None,
    destination: Path | None,
    params_path: Path,
    check: bool,
    sheet: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Check the dataset behind FINGERPRINT and write index.json and pixels/ into DESTINATION.

    With --check nothing is written but a contact sheet; what the files hold is printed, split by
    split: sizes, label values and their classes, and everything that is wrong.
    """
    params = load_params(params_path)
    if check:
        _check(params, sheet or Path(f"{params.dataset.name}-check.png"), seed, as_json)
        return
    if fingerprint is None or destination is None:
        raise click.UsageError("give FINGERPRINT DESTINATION, or --check")
    with reading(fingerprint, "the fingerprint of a dataset", "run `cirkd fingerprint` again"):
        known = validate(str, json.loads(fingerprint.read_bytes())["fingerprint"])
    pixels = destination / "pixels"
    with progress_of_total("check", "samples") as checked:
        index = prepare_dataset(params.dataset, known, pixels, checked, notice=say)
    index.write(destination / "index.json")
    counts = {split: len(samples) for split, samples in index.splits.items()}
    if as_json:
        click.echo(json.dumps({"name": index.name, "splits": counts, "classes": index.class_names}))
        return
    listed = ", ".join(f"{count} {split}" for split, count in counts.items())
    say(f"{index.name}: {listed}; {index.num_classes} classes")


def _check(params: Params, sheet: Path, seed: int, as_json: bool) -> None:
    """Describe the dataset and draw the contact sheet; exit code 1 where something is wrong."""
    crops = {
        name: (crop.height, crop.width)
        for name, crop in (("teacher.crop", params.teacher.crop), ("store.crop", params.store.crop))
    }
    with TemporaryDirectory() as pixels:
        with progress_of_total("check", "samples") as show:
            root, listing = list_dataset(params.dataset, Path(pixels))
            checked = check_listing(root, listing, show)
        findings = (*listing.findings, *checked.findings)
        splits = describe_splits(listing.classes, checked, crops)
        if as_json:
            facts = {
                "splits": splits,
                "findings": findings,
                "notices": checked.notices,
                "sheet": str(sheet),
            }
            click.echo(json.dumps(facts, indent=2, default=asdict))
        else:
            lines = (*write_lines(splits, crops), *checked.notices, f"contact sheet: {sheet}")
            click.echo("\n".join(lines))
        values = splits["train"].values if "train" in splits else ()
        shares = {one.value: one.share for one in values}
        draw_contact_sheet(root, listing, shares, seed, sheet)
    if findings:
        # What was unpacked is no longer at `root`.
        where = getattr(params.dataset, "root", str(root))
        raise DatasetError(where, findings, find_remedy(listing))


if __name__ == "__main__":
    command()
