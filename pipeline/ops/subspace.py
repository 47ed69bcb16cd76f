"""Features by their coordinates in a subspace: c = B^T x, and x ~ B c, B [D, r] orthonormal."""

from __future__ import annotations

import torch
from torch import Tensor

from store.schema import StoreSpec


def project(features: Tensor, basis: Tensor) -> Tensor:
    """Return the coordinates c = B^T x of features [B, D, h, w], float32 [B, r, h, w]."""
    return _multiply(features, basis.mT)


def lift(coordinates: Tensor, basis: Tensor | None) -> Tensor:
    """Return the features x = B c of coordinates [B, r, h, w]; these themselves without a basis."""
    return coordinates if basis is None else _multiply(coordinates, basis)


def basis_tensor(spec: StoreSpec, device: torch.device) -> Tensor | None:
    """Return the basis [D, r] that a store's features are given in, if they are."""
    return torch.tensor(spec.basis_matrix, device=device) if spec.basis else None


def _multiply(maps: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of maps by a matrix in float32, whatever the precision around."""
    with torch.autocast(maps.device.type, enabled=False):
        return torch.einsum("ij,bjhw->bihw", matrix, maps.float())
