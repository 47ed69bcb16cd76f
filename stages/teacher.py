"""Stage 2: get the teacher, by training it, downloading it or loading it, and measure it."""

from dataclasses import asdict
from pathlib import Path

import click

from pipeline.config.params import load_params
from pipeline.config.weights import hash_network_files
from pipeline.datasets.index import Index
from stages.command import (
    StageCommand,
    destination_argument,
    device_option,
    follow_training,
    index_argument,
    measure_precision,
    min_miou_option,
    params_option,
    tensorboard_option,
    warn_of_teacher,
    workers_option,
)
from stages.progress import progress_of_total, say
from stages.work import describe_settings, finish_work, work_folder
from store.files import replace_file, write_json


@click.command(
    "teacher",
    cls=StageCommand,
    example="cirkd teacher artifacts/datasets/scenes/index.json artifacts/teachers/scenes.pt",
)
@index_argument
@destination_argument
@params_option
@device_option
@workers_option
@min_miou_option
@tensorboard_option
def command(
    index_path: Path,
    destination: Path,
    params_path: Path,
    device_name: str,
    num_workers: int,
    min_miou: float,
    tensorboard: Path | None,
) -> None:
    """Write the teacher for INDEX to DESTINATION (.pt), and beside it its card and its log.

    They end in .json and .log.jsonl; the log of a teacher that was not trained here is empty.
    """
    from pipeline.evaluation.evaluate import evaluate, summarise
    from pipeline.evaluation.inference import Inference
    from pipeline.models.teacher import TeacherCard, build_teacher, save_teacher
    from pipeline.runtime.device import pick_device
    from pipeline.runtime.distributed import joined
    from pipeline.training.run import Resources, describe_run
    from pipeline.training.supervised import teacher_run

    params = load_params(params_path)
    settings = params.teacher
    index = Index.read(index_path)
    device = pick_device(device_name)
    teacher = build_teacher(settings, index.class_names).to(device)
    # Before hours of training: the next stage refuses such views.
    teacher.check_size(params.store.crop.height, params.store.crop.width, "store.crop")
    for crop in settings.crops if settings.source == "train" else ():
        teacher.check_size(crop.height, crop.width, "teacher.crop, or its progressive sizes")
    weights = hash_network_files(settings.architecture, settings.backbone)
    described = describe_settings(settings)
    identity = [str(destination), device.type, described, weights, index.fingerprint]
    work = work_folder("teacher", identity)
    precision, seconds = settings.training.precision, 0.0
    cost = measure_precision(precision, device, "teacher.training.precision")
    with joined(device) as ranks:
        if settings.source == "train":
            header = describe_run(settings, device, cost)
            scalars = tensorboard and tensorboard / f"{settings.name}-{work.name}"
            resources = Resources(work, num_workers, ranks=ranks, tensorboard=scalars)
            seconds = follow_training(teacher_run(teacher, settings, index, header, resources))
    if not ranks.is_main:
        return
    with progress_of_total("teacher on val", "images") as show:
        figures = summarise(evaluate(teacher, index, "val", device, Inference(precision), show))
    card = TeacherCard(
        architecture=settings.architecture,
        class_names=list(index.class_names),
        source=settings.source,
        sha256=save_teacher(teacher, destination),
        val=figures,
        num_parameters=teacher.num_parameters,
        seconds=seconds,
        stride=settings.stride,
        feature_layer=settings.feature_layer,
    )
    write_json(asdict(card), destination.with_suffix(".json"))
    trained = settings.source == "train"
    log = (work / "log.jsonl").read_bytes() if trained else b""
    replace_file(destination.with_suffix(".log.jsonl"), log)
    if trained:
        finish_work(work, destination)
    say(f"teacher {settings.name}: val mIoU {figures['miou']}")
    warn_of_teacher(destination, min_miou)


if __name__ == "__main__":
    command()
