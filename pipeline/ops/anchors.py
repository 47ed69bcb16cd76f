"""Anchors: the rows of a similarity matrix, all of them or an unbiased random subset."""

from typing import NamedTuple

import torch
from torch import Tensor


class Anchors(NamedTuple):
    """The rows of a similarity matrix: embeddings [n, D] of both nets, and which take part."""

    student: Tensor
    teacher: Tensor
    rows: Tensor


def pick_anchors(
    student: Tensor,
    teacher: Tensor,
    rows: Tensor,
    num_anchors: int | None,
    generator: torch.Generator | None,
) -> Anchors:
    """Flatten embeddings [B, A, D] and mask [B, A] into rows, all of them or a random subset.

    Raises:
        ValueError: a subset is asked for and no generator is given.
    """
    everything = Anchors(student.flatten(0, 1), teacher.flatten(0, 1), rows.flatten())
    if num_anchors is None:
        return everything
    if generator is None:
        raise ValueError("num_anchors draws at random: pass a generator")
    drawn = draw_rows(everything.rows, num_anchors, generator)
    return Anchors(*(x[drawn] for x in everything))


def draw_rows(rows: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
    """Draw row numbers uniformly without replacement, rows that take part first.

    The mean over the drawn rows is an unbiased estimate of the mean over all of them.

    Args:
        rows: bool [n], True = takes part.
        num_rows: how many to draw, at most n are.
        generator: the random generator, on any device.

    Returns:
        int64 [min(num_rows, n)]; past the last row that takes part it holds rows that do not, so
        that its length never depends on the values of a mask (no host sync): index the mask too.
    """
    keys = torch.rand(len(rows), generator=generator, device=generator.device, dtype=torch.float64)
    keys = keys.to(rows.device).masked_fill(~rows, -1)
    return keys.topk(min(num_rows, len(rows)), sorted=False).indices
