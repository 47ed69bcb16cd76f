"""What the paper published, beside the runs that it can be compared with.

Yang et al., CVPR 2022, and its repository's tables: mIoU on val (CamVid: its test list), single
scale, of a DeepLabV3-R101 teacher and students that started from ImageNet weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.report.comparison import Row
from pipeline.report.results import Results

TEACHER = "deeplabv3_resnet101"
STEPS = {"cityscapes": 40_000, "camvid": 40_000, "voc": 40_000, "ade20k": 40_000}
"""Of a training, by kind of dataset, where they are known."""
RECIPE = {
    "batch_size": 16,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "weight_decay": 0.0001,
    "schedule": "poly",
}
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
    if not same_teacher:
        yield "another teacher than the paper’s DeepLabV3-R101"
    elif params.teacher.source == "train" and params.teacher.backbone == "none":
        yield "the teacher starts from random weights here, from ImageNet’s in the paper"
    recipe = {"steps": STEPS[kind], **RECIPE} if kind in STEPS else RECIPE
    for name, theirs in recipe.items():
        ours = sorted({str(getattr(student.training, name)) for student in settings})
        if ours != [str(theirs)]:
            yield f"{name.replace('_', ' ')} {', '.join(ours)} here, {theirs} in the paper"
    if kind == "camvid":
        yield "measured on val here, on the test list in the paper"
