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
_CIRKD = "pipeline.models.cirkd_networks"

ARCHITECTURES: dict[str, Architecture] = {
    "deeplabv3_resnet101": Architecture("DeepLabV3-R101", f"{_TORCHVISION}:deeplabv3", "resnet101"),
    "deeplabv3_resnet50": Architecture("DeepLabV3-R50", f"{_TORCHVISION}:deeplabv3", "resnet50"),
    "deeplabv3_mobilenet_v3_large": Architecture(
        "DeepLabV3-MobileNetV3", f"{_TORCHVISION}:deeplabv3", "mobilenet_v3_large"
    ),
    "fcn_resnet101": Architecture("FCN-R101", f"{_TORCHVISION}:fcn", "resnet101"),
    "lraspp_mobilenet_v3_large": Architecture(
        "LRASPP-MobileNetV3", f"{_TORCHVISION}:lraspp", "mobilenet_v3_large"
    ),
    "deeplabv3_resnet18": Architecture("DeepLabV3-R18", f"{_SMP}:deeplabv3", "resnet18"),
    "deeplabv3_mobilenet_v2": Architecture(
        "DeepLabV3-MobileNetV2", f"{_SMP}:deeplabv3", "mobilenet_v2"
    ),
    "pspnet_resnet18": Architecture("PSPNet-R18", f"{_SMP}:pspnet", "resnet18"),
    "cirkd_deeplabv3_resnet101": Architecture(
        "DeepLabV3-R101 (CIRKD)", f"{_CIRKD}:deeplabv3", "resnet101"
    ),
    "cirkd_deeplabv3_resnet18": Architecture(
        "DeepLabV3-R18 (CIRKD)", f"{_CIRKD}:deeplabv3", "resnet18"
    ),
    "cirkd_deeplabv3_mobilenet_v2": Architecture(
        "DeepLabV3-MobileNetV2 (CIRKD)", f"{_CIRKD}:deeplabv3", "mobilenet_v2"
    ),
    "cirkd_pspnet_resnet18": Architecture("PSPNet-R18 (CIRKD)", f"{_CIRKD}:pspnet", "resnet18"),
    "cirkd_pspnet_mobilenet_v2": Architecture(
        "PSPNet-MobileNetV2 (CIRKD)", f"{_CIRKD}:pspnet", "mobilenet_v2"
    ),
}
