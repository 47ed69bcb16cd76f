"""Weights that torchvision and timm publish, and files of backbones in the names of either."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from pipeline.config.weights import hash_weights_file
from pipeline.runtime.checkpoint import list_misfits, load_weights
from store.files import reading


def fetch(weights: WeightsEnum) -> dict[str, Tensor]:
    """Read torchvision's file of some weights; download it where torch keeps none.

    Raises:
        ValueError: it cannot be downloaded, or is not the file that its name says.
    """
    file_name = PurePosixPath(urlsplit(weights.url).path).name
    path = Path(torch.hub.get_dir(), "checkpoints", file_name)
    with reading(path, f"torchvision's {weights!r}", f"put {weights.url} in its place"):
        try:
            state = weights.get_state_dict(
                progress=True, check_hash=True, map_location="cpu", weights_only=True
            )
        except URLError as error:
            if isinstance(error, HTTPError):
                error.close()  # It is the answer, too, and holds the connection.
            raise ValueError(f"no file, and no download: {error.reason}") from None
        # torch compares the hash of what it downloads, not of what was there before.
        found = hash_weights_file(str(path))
        if not found.startswith(path.stem.rpartition("-")[2]):
            raise ValueError(f"a file of sha256 {found}")
        return dict(state)


def load_backbone(backbone: nn.Module, name: str, weights: str) -> None:
    """Put pretrained weights into a backbone; those of its classifier of images are dropped.

    Args:
        backbone: in torchvision's names, which for a ResNet are timm's, too.
        name: torchvision's of it, e.g. resnet101.
        weights: a file, `imagenet`, torchvision's name of weights, or timm's of a model.

    Raises:
        ValueError: there are none of that name, or they do not fit.
    """
    blocks = dict(backbone.named_children())
    named = {
        key.removeprefix("features."): tensor
        for key, tensor in _read_backbone(name, weights).items()
    }
    # A classifier of images has blocks after the last of these: fc, MobileNetV2's last convolution.
    state = {key: tensor for key, tensor in named.items() if key.partition(".")[0] in blocks}
    if misfits := list_misfits(backbone.state_dict(), state):
        raise ValueError(f"backbone {weights} is no {name}:\n{misfits}")
    backbone.load_state_dict(state)


def _read_backbone(name: str, weights: str) -> dict[str, Tensor]:
    if Path(weights).is_file():
        return load_weights(Path(weights), f"a backbone {name}", "correct the file or its path")
    published = get_model_weights(name)
    if (member := {"imagenet": "DEFAULT"}.get(weights, weights)) in published.__members__:
        return fetch(published[member])
    import timm  # takes a second, and few need it

    try:
        return timm.create_model(weights.removeprefix("timm/"), pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:  # timm's, and those of its hub
        names = ", ".join(published.__members__)
        raise ValueError(
            f"backbone {weights}: expected none, imagenet, {names}, a file, or a model of timm; "
            f"found no such file, and timm says: {error!s:.300}; without network, give the path of "
            "its model.safetensors"
        ) from error
