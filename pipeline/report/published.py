"""What the paper published, beside the runs that it can be compared with.

Yang et al., CVPR 2022, and its repository's tables: mIoU on val (CamVid: its test list), single
scale, of a DeepLabV3-R101 teacher and students that started from ImageNet weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.base import BaseConfig
from pipeline.config.methods import METHODS
from pipeline.config.params import Params, StudentConfig
from pipeline.report.comparison import Row
from pipeline.report.results import Results

TEACHER = "deeplabv3_resnet101"
STEPS = {"coco_stuff": 80_000}
"""Of a training, by kind of dataset; 40 000 of all others, and crops of 512x512."""
CROPS = {"cityscapes": (512, 1024), "camvid": (360, 360)}
RECIPE = {
    "batch_size": 16,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "weight_decay": 0.0001,
    "schedule": "poly",
}
RELATIONS = {
    "temperature": 1.0,
    "similarity_temperature": 0.1,
    "pixel_queue": 20_000,
    "region_queue": 2000,
    "pixel_contrast": 4096,
    "region_contrast": 1024,
    "pixels_per_class": 16,
}
"""Of CIRKD."""
VOC_WEIGHTS = {"memory_pixel": 0.01, "memory_region": 0.01}
TEACHERS = {
    "cityscapes": 0.7807,
    "camvid": 0.6984,
    "voc": 0.7767,
    "ade20k": 0.4270,
    "coco_stuff": 0.3871,
}
STUDENTS: dict[tuple[str, str], dict[str, float]] = {
    ("cityscapes", "deeplabv3_resnet18"): {
        "ce": 0.7421,
        "skd": 0.7542,
        "ifvd": 0.7559,
        "cwd": 0.7555,
        "dsd": 0.7481,
        "cirkd": 0.7638,
    },
    ("cityscapes", "deeplabv3_mobilenet_v2"): {
        "ce": 0.7312,
        "skd": 0.7382,
        "ifvd": 0.7350,
        "cwd": 0.7466,
        "dsd": 0.7411,
        "cirkd": 0.7542,
    },
    ("cityscapes", "pspnet_resnet18"): {"ce": 0.7255, "cirkd": 0.7473},
    ("camvid", "deeplabv3_resnet18"): {"ce": 0.6692, "cirkd": 0.6821},
    ("camvid", "pspnet_resnet18"): {"ce": 0.6673, "cirkd": 0.6865},
    ("voc", "deeplabv3_resnet18"): {"ce": 0.7321, "cirkd": 0.7450},
    ("voc", "pspnet_resnet18"): {"ce": 0.7333, "cirkd": 0.7478},
    ("ade20k", "deeplabv3_resnet18"): {"ce": 0.3391, "cirkd": 0.3541},
    ("coco_stuff", "deeplabv3_resnet18"): {"ce": 0.3260, "cirkd": 0.3311},
}
"""mIoU by method, of a kind of dataset and an architecture."""


@dataclass(frozen=True)
class Beside:
    """A row, the paper's mIoU and its gain over cross-entropy alone, 0..1."""

    row: Row
    miou: float
    gain: float | None


@dataclass(frozen=True)
class PublishedTable:
    """The rows that the paper has as well, its teacher's mIoU, and what differs, in words."""

    rows: tuple[Beside, ...]
    teacher: float | None
    differences: tuple[str, ...]


def compare(results: Results, rows: Sequence[Row]) -> PublishedTable | None:
    """Find what the paper says of these rows; None of a dataset or networks that it has not."""
    kind = results.index.kind
    beside = tuple(_beside(kind, rows))
    if not beside:
        return None
    same_teacher = _plain(results.teacher.architecture) == TEACHER
    compared = [one.row for one in beside]
    return PublishedTable(
        beside,
        TEACHERS[kind] if same_teacher else None,
        tuple(_differences(results.params, kind, compared, same_teacher)),
    )


def _beside(kind: str, rows: Sequence[Row]) -> Iterator[Beside]:
    for row in rows:
        published = STUDENTS.get((kind, _plain(row.architecture)), {})
        if row.label in published:
            miou = published[row.label]
            yield Beside(row, miou, None if row.label == "ce" else miou - published["ce"])


def _plain(architecture: str) -> str:
    """Name a network of the paper's own layout as the one that it is a layout of."""
    return architecture.removeprefix("cirkd_")


def _differences(
    params: Params, kind: str, rows: Sequence[Row], same_teacher: bool
) -> Iterator[str]:
    """Say what the paper did otherwise than these runs, one thing each."""
    settings = [run.settings for row in rows for run in row.runs]
    fresh = {student.encoder_weights == "none" for student in settings}
    if True in fresh:
        some = "some students" if False in fresh else "students"
        yield f"{some} start from random weights here, from ImageNet’s in the paper"
    recipe = {"steps": STEPS.get(kind, 40_000), **RECIPE}
    height, width = CROPS.get(kind, (512, 512))
    crop = {"height": height, "width": width, "scale_min": 0.5, "scale_max": 2.0}
    teacher = params.teacher
    if not same_teacher:
        yield "another teacher than the paper’s DeepLabV3-R101"
    elif teacher.source == "torchvision":
        yield f"the teacher has torchvision’s weights {teacher.weights}"
    elif teacher.source == "checkpoint":
        yield "the teacher comes from a checkpoint, of whose training nothing is known here"
    else:
        if teacher.backbone == "none":
            yield "the teacher starts from random weights here, from ImageNet’s in the paper"
        yield from _unequal("the teacher’s ", recipe, [teacher.training])
        yield from _unequal("its crops’ ", crop, [teacher.crop])
    yield from _unequal("", recipe, [student.training for student in settings])
    yield from _unequal("stored views’ ", crop, [params.store.crop])
    cirkd = [student for student in settings if student.label == "cirkd"]
    yield from _unequal("", RELATIONS, [student.distillation for student in cirkd])
    yield from _other_weights(kind, settings)
    if kind == "voc" and not getattr(params.dataset, "augmented", True):
        yield "trained on VOC’s own labels here, on SBD’s as well in the paper"
    if kind == "camvid":
        yield "measured on val here, on the test list in the paper"
    if kind == "coco_stuff":
        yield "the mean is of 171 classes here, in the paper’s code of 182, 11 of them always 0"


def _unequal(whose: str, theirs: Mapping[str, Any], ours: Sequence[BaseConfig]) -> Iterator[str]:
    for name, expected in theirs.items():
        found = ", ".join(sorted({str(getattr(one, name)) for one in ours} - {str(expected)}))
        if found:
            yield f"{whose}{name.replace('_', ' ')} {found} here, {expected} in the paper"


def _other_weights(kind: str, settings: Sequence[StudentConfig]) -> Iterator[str]:
    """Say which terms of a method weigh otherwise than in the paper."""
    found = {
        f"{student.label}’s {term} weighs {student.weights[term]:g} here, {weight:g} in the paper"
        for student in settings
        for term, weight in _weights(kind, student.label).items()
        if student.weights[term] != weight
    }
    yield from sorted(found)


def _weights(kind: str, method: str) -> dict[str, float]:
    special = VOC_WEIGHTS if (kind, method) == ("voc", "cirkd") else {}
    return {**METHODS[method], **special}
