"""A network whose features are given by their coordinates in a subspace."""

from __future__ import annotations

from torch import Tensor

from pipeline.models.network import Network, Output
from pipeline.models.wrapped import WrappedNetwork
from pipeline.ops.subspace import project


class SubspaceNetwork(WrappedNetwork):
    """Another network, its features x [B, D, h, w] given as B^T x, float32 [B, r, h, w].

    Args:
        network: whose names its files keep.
        basis: B float32 [D, r], orthonormal columns.
    """

    def __init__(self, network: Network, basis: Tensor) -> None:
        super().__init__(network)
        self.feature_channels = basis.shape[1]
        self.basis: Tensor
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, image: Tensor) -> Output:
        """Map normalised images [B, 3, H, W] (multiples of the stride) to outputs at the stride."""
        logits, features, auxiliary = self.network(image)
        return Output(logits, project(features, self.basis), auxiliary)
