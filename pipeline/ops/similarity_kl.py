"""Similarity KL, the one kernel under every relational term: exact, and never an n x m matrix."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops.embedding import work_dtype
from pipeline.ops.mean import Mean
from pipeline.ops.tiling import (
    BLOCK_BYTES,
    add_product,
    exp_is_safe,
    product_dtype,
    scaled,
    similarities,
    slices,
    tile_rows,
    uncompiled,
)

_NUM_BUFFERS = 3
_BLOCK_TILES = 6  # products gain little from longer blocks, and caches are finite


@uncompiled
def similarity_kl(
    student: Tensor,
    teacher: Tensor,
    student_contrast: Tensor,
    teacher_contrast: Tensor,
    *,
    temperature: float,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Mean:
    """Compare the similarities of student rows to a contrast set with those of the teacher.

    sum_a KL(softmax(t_a Vt^T / temperature) || softmax(s_a Vs^T / temperature)), with a softmax
    and a sum per set of contrast embeddings. Gradients reach `student` and `student_contrast`.
    Autocast applies to the products alone: softmax and sums are float32 (float64 for float64).
    Source: Yang et al., CVPR 2022, equations of the pixel-to-pixel and pixel-to-region terms.

    Args:
        student: [n, D] rows.
        teacher: [n, D2] rows, no gradient.
        student_contrast: [m, D], or [J, m, D] for J sets.
        teacher_contrast: [m, D2] or [J, m, D2], no gradient.
        temperature: divides the similarities, > 0.
        rows: bool [n], True = takes part; default all.
        columns: bool [m] or [J, m], True = takes part; default all.
        block_bytes: the most memory of the row blocks' buffers.

    Returns:
        The sum over rows and sets, and the rows that take part times the sets that have a column.

    Raises:
        ValueError: shapes that do not match, or a temperature that is not positive.
    """
    if student_contrast.dim() == 2:
        student_contrast, teacher_contrast = student_contrast[None], teacher_contrast[None]
        columns = None if columns is None else columns[None]
    check_match(student, teacher, student_contrast, teacher_contrast, rows, columns, temperature)
    num_rows = torch.tensor(len(student), device=student.device) if rows is None else rows.sum()
    num_sets = len(student_contrast) if columns is None else columns.any(1).sum()
    if rows is not None:
        # Rows of zeros in both networks have equal softmaxes: no KL and no gradient.
        student, teacher, _ = _drop(student, teacher, rows, dim=0)
    if columns is not None:
        student_contrast, teacher_contrast, columns = _drop(
            student_contrast, teacher_contrast, columns, dim=1
        )
    scale = 1 / temperature
    settings = _Settings(
        scale,
        exp_is_safe([student], [student_contrast], scale)
        and exp_is_safe([teacher], [teacher_contrast], scale),
        product_dtype(student),
        block_bytes,
    )
    teacher, teacher_contrast = teacher.detach(), teacher_contrast.detach()
    total = _SimilarityKL.apply(
        student, student_contrast, teacher, teacher_contrast, columns, settings
    )
    return Mean(total, num_sets * num_rows)


class _Settings(NamedTuple):
    scale: float
    exp_is_safe: bool
    product_dtype: torch.dtype
    block_bytes: int


class _Blocks(NamedTuple):
    """The working memory of one block of rows against one set.

    Attributes:
        student_logits: [r, m] logits x^s.
        overwritten: [r, m] logits x^t, which become x^t - x^s, then t (x^t - x^s), then s, and
            in the end the gradient s - t, tile by tile; one letter each for a softmax.
        teacher_softmax: t of one tile, at most r rows of m.
    """

    student_logits: Tensor
    overwritten: Tensor
    teacher_softmax: Tensor


class _SimilarityKL(torch.autograd.Function):
    # Any: torch's context, to which every function adds attributes of its own.
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        contrast: Tensor,
        teacher: Tensor,
        teacher_contrast: Tensor,
        columns: Tensor | None,
        settings: _Settings,
    ) -> Tensor:
        """Walk row blocks; value and unit gradients come from the same pass."""
        ctx.dtypes = student.dtype, contrast.dtype
        dtype, scale = work_dtype(student), settings.scale
        with torch.autocast(student.device.type, enabled=False):
            student, contrast, teacher, teacher_contrast = (
                x.to(settings.product_dtype) for x in (student, contrast, teacher, teacher_contrast)
            )
            grads = [
                torch.zeros(x.shape, dtype=dtype, device=x.device) if needed else None
                for x, needed in zip((student, contrast), ctx.needs_input_grad, strict=False)
            ]
            total = student.new_zeros((), dtype=torch.float64)
            for block, blocks in _walk(student, contrast, dtype, settings.block_bytes):
                for j in range(len(contrast)):
                    similarities(student[block], contrast[j], scale, blocks.student_logits)
                    similarities(teacher[block], teacher_contrast[j], scale, blocks.overwritten)
                    kept = None if columns is None else columns[j]
                    kl, gradient = _kl_and_gradient(blocks, kept, settings.exp_is_safe)
                    total += kl
                    if grads[0] is not None:
                        add_product(grads[0][block], gradient, contrast[j], scale)
                    if grads[1] is not None:
                        add_product(grads[1][j], gradient.mT, student[block], scale)
        ctx.save_for_backward(*grads)
        return total.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass left."""
        return (*scaled(ctx.saved_tensors, ctx.dtypes, grad_total), None, None, None, None)


def _walk(
    student: Tensor, contrast: Tensor, dtype: torch.dtype, block_bytes: int
) -> Iterator[tuple[slice, _Blocks]]:
    num_rows, num_columns = len(student), contrast.shape[1]
    if num_rows == 0 or num_columns == 0:
        return
    num_tile_rows = tile_rows(num_columns, student.new_empty(0, dtype=dtype))
    longest = max(1, block_bytes // (_NUM_BUFFERS * num_columns * dtype.itemsize))
    num_blocks = math.ceil(num_rows / min(longest, _BLOCK_TILES * num_tile_rows))
    block_rows = math.ceil(num_rows / num_blocks)
    blocks = _Blocks(
        *(
            student.new_empty((length, num_columns), dtype=dtype)
            for length in (block_rows, block_rows, min(block_rows, num_tile_rows))
        )
    )
    for block in slices(num_rows, block_rows):
        yield block, _Blocks(*(x[: block.stop - block.start] for x in blocks))


def _kl_and_gradient(blocks: _Blocks, kept: Tensor | None, safe: bool) -> tuple[Tensor, Tensor]:
    """Compute the sum of the rows' KL and its gradient [r, m] in x^s, inside the blocks.

    KL = sum_b t_b (x^t_b - x^s_b) - log Z^t + log Z^s, and its gradient in x^s is s - t, where s
    and t are the softmaxes of the logits x and Z their denominators.
    """
    softmax = partial(_safe_softmax, kept=kept) if safe else _softmax
    if kept is not None and not safe:
        # Finite, so that a row without any column gives two equal uniform rows and no NaN.
        lowest = torch.finfo(blocks.student_logits.dtype).min / 4
        blocks.student_logits.masked_fill_(~kept, lowest)
        blocks.overwritten.masked_fill_(~kept, lowest)
    sums = blocks.student_logits.new_zeros((5, len(blocks.student_logits)))
    for tile in slices(len(blocks.student_logits), len(blocks.teacher_softmax)):
        student_logits, teacher_logits = blocks.student_logits[tile], blocks.overwritten[tile]
        teacher_softmax = blocks.teacher_softmax[: len(student_logits)]
        weighted, teacher_peak, teacher_rest, student_peak, student_rest = sums[:, tile]
        softmax(teacher_logits, teacher_softmax, teacher_peak, teacher_rest)
        # From here on each name is the same memory, `overwritten`, one step of its life later.
        difference = teacher_logits.sub_(student_logits)
        weighted_difference = difference.mul_(teacher_softmax)
        torch.sum(weighted_difference, 1, out=weighted)
        student_softmax = weighted_difference
        softmax(student_logits, student_softmax, student_peak, student_rest)
        student_softmax.sub_(teacher_softmax)
    weighted, teacher_peak, teacher_rest, student_peak, student_rest = sums
    # Logits are only ever subtracted from each other in the dtype of `difference`, so that a
    # constant cancels exactly; logs are float64, one number a row costs nothing.
    kl = weighted.sub_(teacher_peak - student_peak).double()
    kl += student_rest.double().log() - teacher_rest.double().log()
    return kl.sum(), blocks.overwritten


def _softmax(logits: Tensor, out: Tensor, peak: Tensor, rest: Tensor) -> None:
    """Write the rows' softmax, and log Z [r] as greatest logit and `rest` = Z / exp(peak)."""
    torch.softmax(logits, 1, out=out)
    torch.amax(logits, 1, out=peak)
    torch.amax(out, 1, out=rest).reciprocal_()


def _safe_softmax(
    logits: Tensor, out: Tensor, peak: Tensor, rest: Tensor, kept: Tensor | None
) -> None:
    """Like `_softmax`, in half the time, of logits whose exp is safe: the peak stays zero."""
    torch.exp(logits, out=out)
    if kept is not None:
        out.mul_(kept)
    torch.sum(out, 1, out=rest)
    # Without any column all is zero, and stays so.
    rest.clamp_min_(torch.finfo(out.dtype).tiny)
    out.mul_(rest.reciprocal().unsqueeze(1))


def _drop(
    student: Tensor, teacher: Tensor, mask: Tensor, dim: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Make masked embeddings inert: leave them out where that needs no sync, else zero them.

    Zeroed columns still need the mask; it comes back as None where they were left out.
    """
    if not _can_leave_out(mask):
        zeroed = ~mask[..., None]
        return student.masked_fill(zeroed, 0), teacher.masked_fill(zeroed, 0), mask
    kept = mask.flatten().nonzero().flatten()
    if len(kept) == mask.numel():
        return student, teacher, None
    return student.index_select(dim, kept), teacher.index_select(dim, kept), None


def _can_leave_out(mask: Tensor) -> bool:
    return mask.device.type == "cpu" and (mask.dim() == 1 or len(mask) == 1)


def check_match(
    student: Tensor,
    teacher: Tensor,
    contrast: Tensor,
    teacher_contrast: Tensor,
    rows: Tensor | None,
    columns: Tensor | None,
    temperature: float,
) -> None:
    """Raise a ValueError unless the arguments of `similarity_kl` match each other."""
    if not temperature > 0:
        raise ValueError(f"similarity_kl: temperature must be > 0, found {temperature}")
    found = {
        "student and teacher rows": (student.shape[:-1], teacher.shape[:-1]),
        "student and teacher contrast": (contrast.shape[:-1], teacher_contrast.shape[:-1]),
        "student rows' and contrast's channels": (student.shape[-1:], contrast.shape[-1:]),
        "teacher rows' and contrast's channels": (teacher.shape[-1:], teacher_contrast.shape[-1:]),
        "rows and their mask": (
            student.shape[:-1],
            student.shape[:-1] if rows is None else rows.shape,
        ),
        "columns and their mask": (
            contrast.shape[:-1],
            contrast.shape[:-1] if columns is None else columns.shape,
        ),
    }
    for what, (left, right) in found.items():
        if left != right:
            raise ValueError(f"similarity_kl: {what} differ: {tuple(left)} and {tuple(right)}")
