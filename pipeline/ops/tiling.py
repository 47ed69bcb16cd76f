"""What the similarity losses are made of: products, blocks of their rows, and when exp is safe."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.ops.embedding import work_dtype

# Any: functions of every signature.
Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK_BYTES = 64 * 2**20
TILE_BYTES = 2**20
"""Of one buffer and one thread: small enough for second-level caches of 2 MiB, large enough that
threads seldom wait for each other (each step of each tile is a barrier, dear on shared cores)."""
LARGEST_LOGIT = 30.0
"""exp of it, and of its negative, summed over any number of columns, is safe in float32."""
FEWEST_COLUMNS = 64
"""Rounding errors of exp average out over so many."""


def uncompiled(function: Function) -> Function:
    """Leave a function out of torch.compile, and keep its type, which torch's decorator loses."""
    disable: Callable[[Function], Function] = torch.compiler.disable
    return disable(function)


def slices(num_rows: int, length: int) -> Iterator[slice]:
    """Cut a number of rows into slices of a length, the last one shorter."""
    for start in range(0, num_rows, length):
        yield slice(start, min(start + length, num_rows))


def tile_rows(num_columns: int, like: Tensor) -> int:
    """Choose how many rows of a matrix are worked on at a time, so that they stay in the cache.

    Elementwise steps are bound by memory, so on CPU each tile takes all of them before the next;
    products want many rows and take whole blocks. Other devices take a block at once.
    """
    if like.device.type != "cpu":
        return torch.iinfo(torch.int64).max
    rows = torch.get_num_threads() * TILE_BYTES / (num_columns * like.dtype.itemsize)
    return 16 * math.ceil(rows / 16)  # products like such numbers


def similarities(rows: Tensor, contrast: Tensor, scale: float, out: Tensor) -> None:
    """Write scale * rows contrast^T [r, m] to `out`."""
    if rows.dtype == out.dtype:
        torch.addmm(out, rows, contrast.mT, beta=0, alpha=scale, out=out)
    else:
        out.copy_(rows @ contrast.mT).mul_(scale)


def add_product(out: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Add scale * left right to `out`."""
    if right.dtype == out.dtype:
        out.addmm_(left, right, alpha=scale)
    else:
        out.add_(left.to(right.dtype) @ right, alpha=scale)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return autocast's dtype where autocast is on; float64 is never narrowed."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return work_dtype(x)


def exp_is_safe(rows: Sequence[Tensor], contrast: Sequence[Tensor], scale: float) -> bool:
    """Tell whether exp of every logit scale * rows contrast^T stays finite without a shift.

    |x y| <= |x| |y|; it is asked on CPU alone, where the answer needs no sync.

    Args:
        rows: each [..., r, D].
        contrast: each [..., m, D].
        scale: of the products.
    """
    if rows[0].device.type != "cpu" or max(x.shape[-2] for x in contrast) < FEWEST_COLUMNS:
        return False
    return scale * _longest(rows) * _longest(contrast) <= LARGEST_LOGIT


def _longest(embeddings: Sequence[Tensor]) -> float:
    lengths = (
        torch.linalg.vector_norm(x.detach(), dim=-1, dtype=work_dtype(x)).max().item()
        for x in embeddings
        if x.numel()
    )
    return max(lengths, default=0.0)


def scaled(
    grads: Iterable[Tensor | None], dtypes: Iterable[torch.dtype], grad_total: Tensor
) -> tuple[Tensor | None, ...]:
    """Scale the unit gradients that a forward pass left, and return them in the inputs' dtypes."""
    return tuple(
        None if grad is None else (grad * grad_total).to(dtype)
        for grad, dtype in zip(grads, dtypes, strict=True)
    )
