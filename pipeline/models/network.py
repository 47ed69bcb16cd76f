"""What teacher and students share: input, output, precision, upsampling, prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.architectures import find_architecture
from pipeline.datasets.views import MEAN, STD
from pipeline.runtime.precision import precision_scope


class Output(NamedTuple):
    """The outputs of a segmentation network at its output stride, before any upsampling.

    Attributes:
        logits: [B, K, h, w], before softmax.
        features: [B, D, h, w], the layer before the classifier.
        auxiliary: [B, K, h, w] logits of the auxiliary head, if there is one.
    """

    logits: Tensor
    features: Tensor
    auxiliary: Tensor | None

    @property
    def auxiliary_logits(self) -> Tensor:
        """Return the auxiliary head's logits; without one the logits, as in DSD's public code."""
        return self.logits if self.auxiliary is None else self.auxiliary


@dataclass(frozen=True)
class Preprocessing:
    """How the images are made that a network's weights were trained on, and its logits enlarged.

    Attributes:
        mean, std: of R, G, B in 0..1.
        bgr: whether the network wants its channels in the order B, G, R.
        align_corners: of the bilinear enlargement.
    """

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    bgr: bool = False
    align_corners: bool = False

    def describe(self) -> dict[str, object]:
        """Return JSON values; what is as in most networks is left out."""
        rules = {"bgr": self.bgr, "align_corners": self.align_corners}
        present = {name: True for name, given in rules.items() if given}
        return {"mean": list(self.mean), "std": list(self.std), **present}


class Network(nn.Module):
    """A segmentation network; `forward` maps normalised images [B, 3, H, W] to an `Output`.

    Attributes:
        architecture: the name that it was built by.
        stride: pixels of an image along one cell of the output; H and W are multiples of it.
        feature_channels: D, the channels of the features.
        preprocessing: how images are normalised for it, and its logits enlarged.
        auxiliary_name: of the module that is its auxiliary head, where it has one; `forward` goes
            without it where `drop_auxiliary` has put None in its place.
        code: what of a user's code decides the outputs, as JSON; part of a store's identity.
    """

    architecture: str
    stride: int
    feature_channels: int
    preprocessing: Preprocessing = Preprocessing()
    auxiliary_name: str = "auxiliary"
    code: Mapping[str, str] = MappingProxyType({})

    def check_size(self, height: int, width: int, what: str) -> None:
        """Refuse images that are no whole number of cells.

        Raises:
            ValueError: naming `what` has this size.
        """
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"{what}: expected multiples of {self.stride}, the output stride of "
                f"{self.architecture}; found {height}x{width}"
            )

    @property
    def weights(self) -> nn.Module:
        """Return the module whose names a teacher's file holds."""
        return self

    @property
    def dropouts(self) -> Sequence[nn.Dropout | nn.Dropout2d]:
        """Return the layers whose probability `teacher.dropout` sets."""
        return ()

    @property
    def has_auxiliary(self) -> bool:
        """Return whether there is an auxiliary head."""
        return any(name == self.auxiliary_name for name, _ in self.named_modules())

    @property
    def num_parameters(self) -> int:
        """Count the parameters without those of the auxiliary head, which only training needs."""
        kept = (value for name, value in self.named_parameters() if not self.is_auxiliary(name))
        return sum(value.numel() for value in kept)

    def is_auxiliary(self, name: str) -> bool:
        """Return whether a parameter or buffer is of the auxiliary head."""
        return name.startswith(f"{self.auxiliary_name}.")

    def drop_auxiliary(self) -> None:
        """Leave the auxiliary head out from now on."""
        parent, _, name = self.auxiliary_name.rpartition(".")
        setattr(self.get_submodule(parent), name, None)

    def fit_to(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the sizes that a file's weights decide, and return the weights that then fit.

        Without an auxiliary head in the file there is none from then on.

        Args:
            state: by the names of `weights`.
        """
        name = self.auxiliary_name.rpartition(".")[2]
        if self.has_auxiliary and not any(key.startswith(f"{name}.") for key in state):
            self.drop_auxiliary()
        return state

    def normalise(self, image: Tensor) -> Tensor:
        """Map RGB uint8 [B, 3, H, W] to the float32 input that the weights were trained on."""
        mean, std = _mean_and_std(self.preprocessing, image.device)
        normalised = (image.float() - mean) / std
        if self.preprocessing.bgr:
            normalised = normalised.flip(1)
        return normalised.contiguous(memory_format=torch.channels_last)

    def predict_logits(self, image: Tensor, precision: str) -> Tensor:
        """Score every class of every pixel of full-size images, before softmax.

        Args:
            image: uint8 RGB [B, 3, H, W], any size: padded to the stride, cropped back.
            precision: float32, bfloat16 or float16.

        Returns:
            float32 [B, K, H, W].
        """
        return self.enlarge_logits(self.compute_output(image, precision).logits, image.shape[-2:])

    def compute_output(self, image: Tensor, precision: str) -> Output:
        """Run full-size images, uint8 RGB [B, 3, H, W], padded to multiples of the stride."""
        height, width = image.shape[-2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        padded = functional.pad(self.normalise(image), padding)
        with precision_scope(image.device, precision):
            output: Output = self(padded)
        return output

    def enlarge_logits(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Bring logits of padded images to the images' own height and width, float32."""
        height, width = size
        padded = (height + -height % self.stride, width + -width % self.stride)
        return self.upsample(logits.float(), padded)[..., :height, :width]

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits bilinearly to height and width, by the rule of the weights."""
        align_corners = self.preprocessing.align_corners
        return functional.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


@cache
@torch.inference_mode(False)  # kept: what an inference made could be part of no exported graph
def _mean_and_std(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copy mean and deviation to each device once: a copy makes the host wait."""
    given = (preprocessing.mean, preprocessing.std)
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in given)
    return mean.to(device), std.to(device)


def resample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps [B, C, h, w] to a height and width: means of cells, or bilinear if it is finer."""
    height, width = size
    if maps.shape[-2:] == (height, width):
        return maps
    if maps.shape[-2] >= height and maps.shape[-1] >= width:
        return functional.adaptive_avg_pool2d(maps, (height, width))
    return functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


def build_network(
    name: str, num_classes: int, encoder_weights: str = "none", feature_layer: str | None = None
) -> Network:
    """Build an architecture by its name, in the memory format that its outputs depend on.

    Args:
        name: as `pipeline.config.architectures.find_architecture` takes it.
        num_classes: K.
        encoder_weights: `none` (fresh, of torch's global generator), `package`, a name or a file.
        feature_layer: of an imported module that returns logits alone.
    """
    entry = find_architecture(name)
    options = {} if feature_layer is None else {"feature_layer": feature_layer}
    network = resolve_name(entry.builder)(entry.encoder, num_classes, encoder_weights, **options)
    assert isinstance(network, Network), f"{entry.builder} built no Network"
    network.architecture = name
    return network.to(memory_format=torch.channels_last)


def compile_network(network: nn.Module, backend: str | None) -> None:
    """Compile the forward pass in place; names of weights stay.

    Args:
        network: whose `forward` is compiled at its first call.
        backend: of torch.compile, e.g. `inductor`; None leaves the network as it is.

    Raises:
        ValueError: torch knows no such backend.
    """
    if backend is None:
        return
    known = torch.compiler.list_backends(exclude_tags=None)
    if backend not in known:
        raise ValueError(f"training.compile: expected one of {', '.join(known)}; found {backend}")
    network.compile(backend=backend)


@torch.inference_mode()
def predict(network: Network, image: Tensor, precision: str) -> Tensor:
    """Predict the class of every pixel, as `predict_logits` scores them: uint8 [B, H, W]."""
    return network.predict_logits(image, precision).argmax(dim=1).to(torch.uint8)
