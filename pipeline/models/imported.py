"""Networks that lie in the user's own code, by import path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.import_path import find_source
from pipeline.config.weights import hash_weights_file
from pipeline.models.network import Network, Output, resample

TRIAL_PX = 256
"""Side of the image that a module is asked its stride and channels with."""


class ImportedNetwork(Network):
    """Any module as a network: its features decide the stride, and logits are brought to it.

    Args:
        network: maps normalised images to (logits, features), to both by name, or to logits alone.
        feature_layer: name of the module inside whose output is the features; None if the network
            returns them.

    Raises:
        ValueError: what it returns is something else.
    """

    def __init__(self, network: nn.Module, num_classes: int, feature_layer: str | None) -> None:
        super().__init__()
        self.network = network
        self._feature_layer = feature_layer
        if feature_layer is not None and feature_layer not in dict(network.named_modules()):
            raise ValueError(f"feature_layer: {type(network).__name__} has no {feature_layer}")
        network.eval()
        with torch.no_grad():
            output = self(torch.zeros(1, 3, TRIAL_PX, TRIAL_PX))
        network.train()
        _, self.feature_channels, *grid = output.features.shape
        self.stride = TRIAL_PX // grid[0]
        if grid != 2 * [TRIAL_PX // self.stride]:
            raise ValueError(
                f"its features of an image of {TRIAL_PX}x{TRIAL_PX} are {grid[0]}x{grid[1]}; "
                "expected a whole number of pixels along each"
            )
        if output.logits.shape[1] != num_classes:
            found = output.logits.shape[1]
            raise ValueError(f"it returns {found} classes; expected {num_classes}")

    @property
    def weights(self) -> nn.Module:
        """Return the user's own module: files hold its names."""
        return self.network

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        layer, kept = self._feature_layer, list[Any]()
        watched = (
            nullcontext()
            if layer is None
            else self.network.get_submodule(layer).register_forward_hook(
                lambda module, given, made: kept.append(made)
            )
        )
        with watched:
            made = self.network(image)
        logits, features = _read(made, kept[-1] if kept else None)
        return Output(resample(logits, features.shape[-2:]), features, None)


def _read(made: Any, features: Any) -> tuple[Tensor, Tensor]:  # of whatever type it is
    """Take logits and features out of what a module returned, and what its layer did.

    Raises:
        ValueError: there are not both of them.
    """
    if isinstance(made, Mapping):
        logits, own = made.get("logits"), made.get("features")
    elif hasattr(made, "logits"):
        logits, own = made.logits, getattr(made, "features", None)
    else:
        logits, own, *_ = (*made, None, None) if isinstance(made, (tuple, list)) else (made, None)
    features = own if features is None else features
    maps = [x for x in (logits, features) if isinstance(x, Tensor) and x.ndim == 4]
    if len(maps) < 2:
        raise ValueError(
            f"it returns {type(made).__name__}; expected logits and features, each [B, C, h, w]: "
            "a pair, or both by name; or logits alone, and feature_layer: NAME of the module that "
            "makes the features"
        )
    return maps[0], maps[1]


def imported(
    path: str, num_classes: int, encoder_weights: str, feature_layer: str | None = None
) -> Network:
    """Build a network by calling `package.module:factory` with the number of classes.

    Raises:
        ValueError: there is no such factory, or what it makes is no network.
    """
    factory = _find_factory(path)
    if encoder_weights != "none":
        raise ValueError(
            f"encoder_weights: expected none with architecture {path}, which makes its own weights"
        )
    made = factory(num_classes)
    network = made if isinstance(made, Network) else _wrap(path, made, num_classes, feature_layer)
    if network is made and feature_layer is not None:
        raise ValueError(
            f"architecture {path}: a Network has its features; leave feature_layer out"
        )
    code = {"sha256": hash_weights_file(find_source(path)), "feature_layer": feature_layer}
    network.code = {name: value for name, value in code.items() if value is not None}
    return network


def _wrap(path: str, made: object, num_classes: int, feature_layer: str | None) -> Network:
    if not isinstance(made, nn.Module):
        found = type(made).__name__
        raise ValueError(f"architecture {path}: expected a torch.nn.Module; found {found}")
    try:
        return ImportedNetwork(made, num_classes, feature_layer)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"architecture {path}: {error}") from error


def _find_factory(path: str) -> Callable[[int], object]:
    source = find_source(path)
    try:
        factory = resolve_name(path)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"architecture {path}: {source}: {error}") from error
    if not callable(factory):
        raise ValueError(f"architecture {path}: {source}: {factory!r:.60} cannot be called")
    found: Callable[[int], object] = factory
    return found
