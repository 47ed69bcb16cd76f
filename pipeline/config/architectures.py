"""The networks that params.yaml may name: adding one is adding one line here.

Any of them may be a teacher or a student. What builds a network is imported when one is built, so
that params.yaml is checked without torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        title: what tables and figures call it.
        builder: `module:function`, called with `encoder`, the number of classes, and the weights
            that the encoder starts from (`none`, a name or a file).
        encoder: the name of its encoder.
    """

    title: str
    builder: str
    encoder: str


_SMP, _TORCHVISION = "pipeline.models.smp_networks", "pipeline.models.torchvision_networks"

ARCHITECTURES: dict[str, Architecture] = {
    "deeplabv3_resnet101": Architecture("DeepLabV3-R101", f"{_TORCHVISION}:deeplabv3", "resnet101"),
    "deeplabv3_resnet18": Architecture("DeepLabV3-R18", f"{_SMP}:deeplabv3", "resnet18"),
    "deeplabv3_mobilenet_v2": Architecture(
        "DeepLabV3-MobileNetV2", f"{_SMP}:deeplabv3", "mobilenet_v2"
    ),
    "pspnet_resnet18": Architecture("PSPNet-R18", f"{_SMP}:pspnet", "resnet18"),
}
