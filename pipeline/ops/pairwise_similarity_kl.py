"""Similarity KL between all images of a batch, each pair's products shared by its two directions.

S_ji is S_ij transposed: the softmax over the rows of S_ij is the one over the columns of S_ji, and
both directions' gradients add up before the product with the embeddings. That is half the products
of `similarity_kl`, for two matrices [A, A] of memory.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops.embedding import work_dtype
from pipeline.ops.mean import Mean
from pipeline.ops.similarity_kl import check_match, similarity_kl
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


@uncompiled
def batch_similarity_kl(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor,
    *,
    temperature: float,
    block_bytes: int = BLOCK_BYTES,
) -> Mean:
    """Compare the similarities between the rows of every ordered pair of images, i = j included.

    sum_ij sum_a KL(softmax(t_i[a] t_j^T / temperature) || softmax(s_i[a] s_j^T / temperature)):
    `similarity_kl` of all rows to each image as a set, which it is where a pair's matrices exceed
    `block_bytes`, where exp of a logit may overflow, and on devices that must not sync.

    Args:
        student: [J, A, D] rows of J images.
        teacher: [J, A, D2] rows, no gradient.
        valid: bool [J, A], True = takes part, as row and as column.
        temperature: divides the similarities, > 0.
        block_bytes: the most memory of a pair's matrices, or of the row blocks' buffers.

    Returns:
        The sum over rows and images, and the rows that take part times the images that have one.

    Raises:
        ValueError: shapes that do not match, or a temperature that is not positive.
    """
    rows = student.flatten(0, 1), teacher.flatten(0, 1)
    check_match(*rows, student, teacher, valid.flatten(), valid, temperature)
    if _fits(student, block_bytes):
        images, teachers = _leave_out(student, valid), _leave_out(teacher.detach(), valid)
        scale = 1 / temperature
        if exp_is_safe(images, images, scale) and exp_is_safe(teachers, teachers, scale):
            settings = _Settings(scale, product_dtype(student))
            total = _PairsKL.apply(settings, teachers, *images)
            return Mean(total, valid.any(1).sum() * valid.sum())
    return similarity_kl(
        *rows,
        student,
        teacher,
        temperature=temperature,
        rows=valid.flatten(),
        columns=valid,
        block_bytes=block_bytes,
    )


class _Settings(NamedTuple):
    scale: float
    product_dtype: torch.dtype


def _fits(student: Tensor, block_bytes: int) -> bool:
    pair_bytes = 2 * student.shape[1] ** 2 * work_dtype(student).itemsize
    return student.device.type == "cpu" and len(student) > 0 and pair_bytes <= block_bytes


def _leave_out(embeddings: Tensor, valid: Tensor) -> list[Tensor]:
    images = []
    for image, mask in zip(embeddings.unbind(), valid, strict=True):
        kept = mask.nonzero().flatten()
        images.append(image if len(kept) == len(image) else image.index_select(0, kept))
    return images


class _PairsKL(torch.autograd.Function):
    # Any: torch's context, to which every function adds attributes of its own.
    @staticmethod
    def forward(ctx: Any, settings: _Settings, teachers: list[Tensor], *images: Tensor) -> Tensor:
        """Walk unordered pairs; value and unit gradients come from the same pass."""
        dtype, scale = work_dtype(images[0]), settings.scale
        ctx.dtypes = [x.dtype for x in images]
        needed = any(ctx.needs_input_grad)
        total = torch.zeros((), dtype=torch.float64)
        grads = [torch.zeros(x.shape, dtype=dtype) if needed else None for x in images]
        with torch.autocast("cpu", enabled=False):
            students = [x.to(settings.product_dtype) for x in images]
            teachers = [x.to(settings.product_dtype) for x in teachers]
            longest = max(len(x) for x in images)
            memory = [torch.empty(longest**2, dtype=dtype) for _ in range(2)]
            for i, j in torch.combinations(torch.arange(len(images)), 2, True).tolist():
                shape = len(images[i]), len(images[j])
                if 0 in shape:
                    continue
                student, teacher = (x[: shape[0] * shape[1]].view(shape) for x in memory)
                similarities(students[i], students[j], scale, student)
                similarities(teachers[i], teachers[j], scale, teacher)
                kl = _kl_and_gradient_(student, teacher)
                # An image with itself is both directions at once, and so is its gradient.
                total += kl if i != j else kl / 2
                if needed:
                    add_product(grads[i], student, students[j], scale)
                    if i != j:
                        add_product(grads[j], student.mT, students[i], scale)
        ctx.save_for_backward(*grads)
        return total.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass left."""
        return (None, None, *scaled(ctx.saved_tensors, ctx.dtypes, grad_total))


def _kl_and_gradient_(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute both directions' KL of a pair's logits [n, m]; `student` becomes its gradient.

    With e = exp(x), Z_a and Z_b its sums over the columns and over the rows,
    KL = sum_a (sum_b e^t (x^t - x^s) / Z^t_a - log Z^t_a + log Z^s_a) + the same with a, b swapped;
    its gradient in x^s is e^s (1 / Z^s_a + 1 / Z^s_b) - e^t (1 / Z^t_a + 1 / Z^t_b).
    """
    # Tile by tile x^s and x^t become e^s and e^t, then their weighted parts of the gradient, and
    # x^s the gradient; `spare` is e^t (x^t - x^s), then the weights.
    num_rows, num_columns = student.shape
    length = min(num_rows, tile_rows(num_columns, student))
    spare = student.new_empty(length, num_columns)
    rows, columns = student.new_empty(3, num_rows), student.new_zeros(3, num_columns)
    for tile in slices(num_rows, length):
        x_student, x_teacher = student[tile], teacher[tile]
        difference = torch.sub(x_teacher, x_student, out=spare[: len(x_student)])
        exp_student, exp_teacher = x_student.exp_(), x_teacher.exp_()
        parts = exp_student, exp_teacher, difference.mul_(exp_teacher)
        for part, of_rows, of_columns in zip(parts, rows, columns, strict=True):
            torch.sum(part, 1, out=of_rows[tile])
            of_columns += part.sum(0)
    z_student, z_teacher, weighted_sum = torch.cat((rows, columns), 1).double()
    kl: Tensor = weighted_sum / z_teacher - z_teacher.log() + z_student.log()
    rows, columns = rows.reciprocal_(), columns.reciprocal_()
    for tile in slices(num_rows, length):
        exp_student, exp_teacher = student[tile], teacher[tile]
        weights = spare[: len(exp_student)]
        exp_student.mul_(torch.add(rows[0, tile, None], columns[0], out=weights))
        exp_teacher.mul_(torch.add(rows[1, tile, None], columns[1], out=weights))
        exp_student.sub_(exp_teacher)
    return kl.sum()
