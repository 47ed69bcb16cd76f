"""A network whose outputs are those of another one, changed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pipeline.models.network import Network


class WrappedNetwork(Network):
    """Another network, whose names its files keep; a subclass says what becomes of its outputs.

    Args:
        network: the other one.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.stride, self.feature_channels = network.stride, network.feature_channels
        self.architecture, self.preprocessing = network.architecture, network.preprocessing
        self.code = dict(network.code)  # a mapping proxy cannot be copied with the network
        self.auxiliary_name = f"network.{network.auxiliary_name}"

    @property
    def weights(self) -> nn.Module:
        """Return the module whose names a teacher's file holds."""
        return self.network.weights

    @property
    def dropouts(self) -> Sequence[nn.Dropout | nn.Dropout2d]:
        """Return the layers whose probability `teacher.dropout` sets."""
        return self.network.dropouts
