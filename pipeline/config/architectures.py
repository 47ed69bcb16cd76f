"""The networks that params.yaml may name: adding one is adding one line here.

What builds a network is imported when one is built, so that params.yaml is checked without torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        title: what tables and figures call it.
        builder: `module:function`, called with `encoder`, and with what `build_student` or
            `build_teacher` adds.
        encoder: the name of its encoder.
    """

    title: str
    builder: str
    encoder: str


_STUDENTS, _TEACHER = "pipeline.models.students", "pipeline.models.teacher"

STUDENTS: dict[str, Architecture] = {
    "deeplabv3_resnet18": Architecture("DeepLabV3-R18", f"{_STUDENTS}:deeplabv3", "resnet18"),
    "deeplabv3_mobilenet_v2": Architecture(
        "DeepLabV3-MobileNetV2", f"{_STUDENTS}:deeplabv3", "mobilenet_v2"
    ),
    "pspnet_resnet18": Architecture("PSPNet-R18", f"{_STUDENTS}:pspnet", "resnet18"),
}

TEACHERS: dict[str, Architecture] = {
    "deeplabv3_resnet101": Architecture("DeepLabV3-R101", f"{_TEACHER}:DeepLabV3", "resnet101"),
}
