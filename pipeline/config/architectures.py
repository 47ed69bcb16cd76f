"""The networks that params.yaml may name: adding one is adding one line here.

Any of them may be a teacher or a student. What builds a network is imported when one is built, so
that params.yaml is checked without torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        title: what tables and figures call it.
        builder: `module:function`, called with `encoder`, the number of classes, and the weights
            that the encoder starts from (`none`, `package`, a name or a file).
        encoder: the name of its encoder; `decoder/encoder` for segmentation_models_pytorch.
    """

    title: str
    builder: str
    encoder: str


_TORCHVISION = "pipeline.models.torchvision_networks"
_CIRKD = "pipeline.models.cirkd_networks"


def _smp(title: str, pair: str) -> Architecture:
    return Architecture(title, "pipeline.models.smp_networks:build", pair)


ARCHITECTURES: dict[str, Architecture] = {
    "deeplabv3_resnet101": Architecture("DeepLabV3-R101", f"{_TORCHVISION}:deeplabv3", "resnet101"),
    "deeplabv3_resnet50": Architecture("DeepLabV3-R50", f"{_TORCHVISION}:deeplabv3", "resnet50"),
    "deeplabv3_mobilenet_v3_large": Architecture(
        "DeepLabV3-MobileNetV3 (torchvision)", f"{_TORCHVISION}:deeplabv3", "mobilenet_v3_large"
    ),
    "fcn_resnet101": Architecture("FCN-R101", f"{_TORCHVISION}:fcn", "resnet101"),
    "lraspp_mobilenet_v3_large": Architecture(
        "LRASPP-MobileNetV3", f"{_TORCHVISION}:lraspp", "mobilenet_v3_large"
    ),
    "deeplabv3_resnet18": _smp("DeepLabV3-R18", "deeplabv3/resnet18"),
    "deeplabv3_mobilenet_v2": _smp("DeepLabV3-MobileNetV2", "deeplabv3/mobilenet_v2"),
    "deeplabv3_mobilenet_v3": _smp("DeepLabV3-MobileNetV3", "deeplabv3/tu-mobilenetv3_large_100"),
    "deeplabv3_mobilevit": _smp("DeepLabV3-MobileViT-XXS", "deeplabv3/tu-mobilevit_xxs"),
    **{
        f"deeplabv3_efficientnet_lite{n}": _smp(
            f"DeepLabV3-EfficientNet-Lite{n}", f"deeplabv3/tu-tf_efficientnet_lite{n}"
        )
        for n in range(3)
    },
    "pspnet_resnet18": _smp("PSPNet-R18", "pspnet/resnet18"),
    "pspnet_mobilenet_v2": _smp("PSPNet-MobileNetV2", "pspnet/mobilenet_v2"),
    "upernet_resnet18": _smp("UPerNet-R18", "upernet/resnet18"),
    "segformer_mit_b0": _smp("SegFormer-B0", "segformer/mit_b0"),
    "segformer_mit_b4": _smp("SegFormer-B4", "segformer/mit_b4"),
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

SMP_DECODERS: dict[str, str] = {
    "unet": "U-Net",
    "unetplusplus": "U-Net++",
    "manet": "MA-Net",
    "linknet": "LinkNet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "pan": "PAN",
    "upernet": "UPerNet",
    "segformer": "SegFormer",
}
"""Those of segmentation_models_pytorch whose classifier has one input map, with their titles.

DPT is left out: its decoder takes a vision transformer's class token beside the maps.
"""

_SMP_PAIR = re.compile(r"smp:(\w+)/([\w.-]+)")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def find_architecture(name: str) -> Architecture:
    """Find a network by its name, `smp:ARCHITECTURE/ENCODER` or `package.module:factory`.

    Raises:
        ValueError: it is none of these.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if (pair := _SMP_PAIR.fullmatch(name)) and pair[1] in SMP_DECODERS:
        return _smp(f"{SMP_DECODERS[pair[1]]}, {pair[2]}", name.removeprefix("smp:"))
    if is_import_path(name):
        return Architecture(name, "pipeline.models.imported:imported", name)
    raise ValueError(
        f"expected one of {', '.join(ARCHITECTURES)}; smp:ARCHITECTURE/ENCODER, where ARCHITECTURE "
        f"is one of {', '.join(SMP_DECODERS)}; or package.module:factory"
    )


def is_import_path(name: str) -> bool:
    """Return whether an architecture is code of the user's: `package.module:factory`."""
    return not name.startswith("smp:") and _IMPORT_PATH.fullmatch(name) is not None


def refuse_unnamed(architecture: str, named: Collection[str], path: Path) -> None:
    """Refuse an import path that a file holds and params.yaml does not: files never choose code.

    Args:
        architecture: as the file has it.
        named: architectures of params.yaml.
        path: the file.

    Raises:
        ValueError: naming both.
    """
    if is_import_path(architecture) and architecture not in named:
        raise ValueError(
            f"{path}: its architecture is {architecture}, which would be imported and called; "
            "params.yaml does not name it: run with the params.yaml that it was trained with"
        )


def _check(name: str) -> str:
    find_architecture(name)
    return name


ArchitectureName = Annotated[str, AfterValidator(_check)]
"""A name that `find_architecture` finds."""
