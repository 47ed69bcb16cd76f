"""A network whose outputs are averaged down to a coarser grid."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipeline.models.network import Network, Output
from pipeline.models.wrapped import WrappedNetwork


class PooledNetwork(WrappedNetwork):
    """Another network at a multiple of its stride: each cell is the mean of those it covers.

    Args:
        network: whose names its files keep.
        stride: a multiple of the network's.
    """

    def __init__(self, network: Network, stride: int) -> None:
        super().__init__(network)
        self.stride = stride

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        logits, features, auxiliary = self.network(image)
        return Output(
            self._average(logits),
            self._average(features),
            None if auxiliary is None else self._average(auxiliary),
        )

    def _average(self, maps: Tensor) -> Tensor:
        # The last cells of crops that are no multiple cover less, as a convolution's do.
        return functional.avg_pool2d(maps, self.stride // self.network.stride, ceil_mode=True)


def pool(network: Network, stride: int | None) -> Network:
    """Return a network at the declared stride; itself where that is its own, or there is none.

    Raises:
        ValueError: the stride is no multiple of the network's.
    """
    if stride is None or stride == network.stride:
        return network
    if stride % network.stride:
        raise ValueError(
            f"teacher.stride: expected a multiple of {network.stride}, the output stride of "
            f"{network.architecture}; found {stride}"
        )
    return PooledNetwork(network, stride)
