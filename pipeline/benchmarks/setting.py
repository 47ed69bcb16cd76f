"""Sizes that a step is measured at, and the run, the teacher and the store they mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.config import params
from pipeline.config.training import StudentTraining
from pipeline.datasets.index import ClassTable, Index, Sample
from pipeline.extraction.job import Extraction, plan_store
from pipeline.models.teacher import build_teacher
from store.schema import VOID

NUM_PEAK_STEPS = 2  # that peak memory is taken over: the second has the optimizer's state


@dataclass(frozen=True)
class Setting:
    """Sizes of what is stepped; by default the paper's queues and contrast sets (Cityscapes).

    Attributes:
        height, width, batch_size: of a batch of views.
        precisions: each is measured.
        anchors_per_image: rows of the relational terms, in every way; None = every pixel, whose
            whole matrices a batch of 512x1024 has no room for.
        threads: of the CPU.
        num_classes: K.
        num_records: of the store, every one of them read again and again.
        pixel_queue, region_queue: slots of a class, all filled before the first step.
        pixel_contrast, region_contrast: 4096 and 1024 become 4104 and 1026 for 19 classes.
        matrix_side: of the products that the machine's matrix rate is measured with.
    """

    height: int
    width: int
    batch_size: int
    precisions: tuple[str, ...]
    anchors_per_image: int | None
    threads: int
    num_classes: int = 19
    num_records: int = 8
    pixel_queue: int = 20_000
    region_queue: int = 2_000
    pixel_contrast: int = 4096
    region_contrast: int = 1024
    matrix_side: int = 2048


CPU = Setting(256, 512, 2, ("float32", "bfloat16"), None, 2)
CUDA = Setting(512, 1024, 16, ("bfloat16",), 1024, 2, num_records=64, matrix_side=8192)


def default_setting(device: torch.device) -> Setting:
    """The sizes that are measured on such a device."""
    return CUDA if device.type == "cuda" else CPU


def cirkd_run(setting: Setting, architecture: str, precision: str) -> params.Student:
    """The run that a setting means: the paper's recipe and weights."""
    anchors = setting.anchors_per_image
    drawn = None if anchors is None else anchors * setting.batch_size
    return params.Student(
        architecture=architecture,  # type: ignore[arg-type]
        method="cirkd",
        seed=0,
        training=recipe(setting, precision),
        distillation=params.Distillation(
            temperature=1.0,
            similarity_temperature=0.1,
            pixel_queue=setting.pixel_queue,
            region_queue=setting.region_queue,
            pixel_contrast=setting.pixel_contrast,
            region_contrast=setting.region_contrast,
            pixels_per_class=16,
            minibatch_anchors=drawn,
            memory_anchors=drawn,
        ),
    )


def recipe(setting: Setting, precision: str) -> StudentTraining:
    """The paper's optimizer; as many steps as peak memory is taken over, unless replaced."""
    return StudentTraining(
        steps=NUM_PEAK_STEPS,
        batch_size=setting.batch_size,
        optimizer="sgd",
        learning_rate=0.02,
        weight_decay=1e-4,
        schedule="poly",
        precision=precision,  # type: ignore[arg-type]
    )


def random_job(setting: Setting, precision: str, device: torch.device) -> Extraction:
    """A fresh teacher, and the plan of a store of random views: time does not depend on values."""
    crop = params.Crop(
        height=setting.height,
        width=setting.width,
        scale_min=1.0,
        scale_max=1.0,
        flip_probability=0.0,
    )
    settings = params.Store(
        name="random",
        num_views=1,
        seed=0,
        crop=crop,
        encodings=params.Encodings(logits="float16", features="uint8_per_pixel"),
        samples_per_class=16,
        unit_size=setting.batch_size,
        forward_batch=setting.batch_size,
        threads=setting.threads,
        precision=precision,  # type: ignore[arg-type]
    )
    fresh = params.Teacher(
        name="random",
        source="train",
        seed=0,
        dropout=0.0,
        crop=crop,
        training=recipe(setting, precision),
    )
    teacher = build_teacher(fresh, setting.num_classes).to(device).eval()
    index = _random_index(setting)
    return Extraction(index, teacher, settings, plan_store(index, settings, "", device), device)


def _random_index(setting: Setting) -> Index:
    ids = tuple(range(setting.num_classes))
    samples = tuple(
        Sample(f"random/{n}", "", "", setting.height, setting.width)
        for n in range(setting.num_records)
    )
    return Index(
        name="random",
        kind="random",
        root="",
        fingerprint="random",
        classes=ClassTable(tuple(map(str, ids)), tuple((n, n, n) for n in ids), ids, (VOID,)),
        splits={"train": samples},
        most_classes=setting.num_classes,
    )
