"""Stage 7: everything measured for a profile, on one page and in one file of figures."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

import click

from pipeline.config.architectures import refuse_unnamed
from pipeline.config.params import load_params
from pipeline.models.network import Network
from pipeline.models.students import load_student
from pipeline.report.page import build_page, choose_shown
from pipeline.report.plots import write_plots
from pipeline.report.results import gather, metrics
from pipeline.report.samples import NamedNetwork, pick_samples, show
from pipeline.runtime.device import pick_device
from stages.command import PATH, StageCommand, device_option, params_option
from stages.progress import progress, say
from store.files import replacing, write_json


@click.command("report", cls=StageCommand, example="cirkd report artifacts/profiles/scenes")
@click.argument("profile", type=PATH)
@params_option
@device_option
def command(profile: Path, params_path: Path, device_name: str) -> None:
    """Write metrics.json, plots/ and report/index.html into PROFILE: artifacts/profiles/NAME."""
    params = load_params(params_path)
    results = gather(profile, params)
    index = results.index
    weights = profile.parent.parent / "teachers" / f"{params.teacher.name}.pt"
    card = results.teacher
    refuse_unnamed(card.architecture, params.architectures, weights.with_suffix(".json"))
    teacher = partial(card.load, weights, index.class_names)
    networks = [NamedNetwork("teacher", teacher, params.teacher.training.precision)]
    for run in choose_shown(results.runs):
        path = profile / "students" / run.name / "model.pt"
        precision = params.students[run.name].training.precision
        networks.append(
            NamedNetwork(run.name, partial(_load_student, path, params.architectures), precision)
        )
    device, samples = pick_device(device_name), pick_samples(index, "val")
    with progress("predict", len(networks), "networks") as advance:
        shown = show(index, samples, networks, device, advance)
    page = build_page(results, shown)
    write_json(metrics(results), profile / "metrics.json")
    write_plots(results, profile)
    with replacing(profile / "report" / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"{profile / 'report' / 'index.html'}: {len(page.encode()) / 1e6:.2f} MB")


def _load_student(path: Path, named: Collection[str]) -> Network:
    return load_student(path, named).network


if __name__ == "__main__":
    command()
