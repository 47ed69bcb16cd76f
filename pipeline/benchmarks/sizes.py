"""Sizes that a step is measured at, and the run, the teacher and the store they mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.config.base import Precision
from pipeline.config.params import (
    Crop,
    DistillationConfig,
    Encodings,
    StoreConfig,
    StudentConfig,
    Subspace,
    TeacherConfig,
)
from pipeline.config.training import StudentTrainingConfig
from pipeline.datasets.index import ClassTable, Index, Sample
from pipeline.extraction.basis import with_basis
from pipeline.extraction.job import Extraction, plan_store
from pipeline.models.teacher import build_teacher
from store.schema import VOID

NUM_PEAK_STEPS = 2  # that peak memory is taken over: the second has the optimizer's state


@dataclass(frozen=True)
class Sizes:
    """Sizes of what is stepped; by default the paper's queues and contrast sets (Cityscapes).

    Attributes:
        height, width, batch_size: of a batch of views.
        precisions: each is measured.
        anchors_per_image: rows of the relational terms, in every variant; None = every pixel, whose
            whole matrices a batch of 512x1024 has no room for.
        threads: of the CPU.
        num_classes: K.
        num_records: of the store, every one of them read again and again.
        pixel_queue, region_queue: slots of a class, all filled before the first step.
        pixel_contrast, region_contrast: 4096 and 1024 become 4104 and 1026 for 19 classes.
        matrix_side: of the products that the machine's matrix rate is measured with.
        rank: of the subspace that features are stored in; None = all channels.
    """

    height: int
    width: int
    batch_size: int
    precisions: tuple[Precision, ...]
    anchors_per_image: int | None
    threads: int
    num_classes: int = 19
    num_records: int = 8
    pixel_queue: int = 20_000
    region_queue: int = 2_000
    pixel_contrast: int = 4096
    region_contrast: int = 1024
    matrix_side: int = 2048
    rank: int | None = None


CPU = Sizes(256, 512, 2, ("float32", "bfloat16"), None, 2)
CUDA = Sizes(512, 1024, 16, ("bfloat16",), 1024, 2, num_records=64, matrix_side=8192)


def default_sizes(device: torch.device) -> Sizes:
    """Return the sizes that are measured on such a device."""
    return CUDA if device.type == "cuda" else CPU


def cirkd_run(sizes: Sizes, architecture: str, precision: Precision) -> StudentConfig:
    """Return the run that these sizes mean, with the paper's training and weights."""
    anchors = sizes.anchors_per_image
    drawn = None if anchors is None else anchors * sizes.batch_size
    return StudentConfig(
        architecture=architecture,
        method="cirkd",
        seed=0,
        training=training_config(sizes, precision),
        distillation=DistillationConfig(
            temperature=1.0,
            similarity_temperature=0.1,
            pixel_queue=sizes.pixel_queue,
            region_queue=sizes.region_queue,
            pixel_contrast=sizes.pixel_contrast,
            region_contrast=sizes.region_contrast,
            pixels_per_class=16,
            minibatch_anchors=drawn,
            memory_anchors=drawn,
        ),
    )


def training_config(sizes: Sizes, precision: Precision) -> StudentTrainingConfig:
    """Return the paper's optimizer, with as many steps as peak memory is taken over."""
    return StudentTrainingConfig(
        steps=NUM_PEAK_STEPS,
        batch_size=sizes.batch_size,
        optimizer="sgd",
        learning_rate=0.02,
        weight_decay=1e-4,
        schedule="poly",
        precision=precision,
    )


def random_job(sizes: Sizes, precision: Precision, device: torch.device) -> Extraction:
    """Build a fresh teacher, and plan a store of random views: time does not depend on values."""
    crop = Crop(
        height=sizes.height,
        width=sizes.width,
        scale_min=1.0,
        scale_max=1.0,
        flip_probability=0.0,
    )
    features = (
        "uint8_per_pixel" if sizes.rank is None else Subspace(encoding="subspace", rank=sizes.rank)
    )
    settings = StoreConfig(
        name="random",
        num_views=1,
        seed=0,
        crop=crop,
        encodings=Encodings(logits="float16", features=features),
        samples_per_class=16,
        unit_size=sizes.batch_size,
        forward_batch=sizes.batch_size,
        threads=sizes.threads,
        precision=precision,
    )
    fresh = TeacherConfig(
        name="random",
        source="train",
        seed=0,
        dropout=0.0,
        crop=crop,
        training=training_config(sizes, precision),
    )
    index = _random_index(sizes)
    teacher = build_teacher(fresh, index.class_names).to(device).eval()
    spec = plan_store(index, settings, teacher, "", device)
    job = Extraction(index, teacher, settings, spec, device)
    if sizes.rank is None:
        return job
    # Any basis takes the same time.
    return with_basis(job, np.eye(spec.feature_channels, sizes.rank, dtype=np.float32))


def _random_index(sizes: Sizes) -> Index:
    ids = tuple(range(sizes.num_classes))
    samples = tuple(
        Sample(f"random/{n}", "", "", sizes.height, sizes.width) for n in range(sizes.num_records)
    )
    return Index(
        name="random",
        kind="random",
        root="",
        fingerprint="random",
        classes=ClassTable(tuple(map(str, ids)), tuple((n, n, n) for n in ids), ids, (VOID,)),
        splits={"train": samples},
        most_classes=sizes.num_classes,
    )
