"""The relational losses by plain autograd, which keeps every similarity matrix for backward."""

import torch
import torch.nn.functional as F
from torch import Tensor


def naive_kl(
    student: Tensor,
    teacher: Tensor,
    contrast: Tensor,
    teacher_contrast: Tensor,
    temperature: float,
) -> Tensor:
    """Average over rows KL(softmax(t V^T / temperature) || softmax(s V^T / temperature)).

    Args:
        student: rows [n, D].
        teacher: rows [n, D]; they get no gradient.
        contrast: columns [m, D] for the student's rows.
        teacher_contrast: columns [m, D] for the teacher's rows.
        temperature: divides the similarities.
    """
    log_student = (student @ contrast.T / temperature).log_softmax(1)
    with torch.no_grad():
        log_teacher = (teacher @ teacher_contrast.T / temperature).log_softmax(1)
    return F.kl_div(log_student, log_teacher, reduction="sum", log_target=True) / len(student)


def naive_minibatch(
    student: Tensor,
    teacher: Tensor,
    contrast: Tensor,
    teacher_contrast: Tensor,
    temperature: float,
) -> Tensor:
    """Average `naive_kl` over all ordered pairs of images, one matrix a pair.

    Args:
        student: anchors of every image [B, a, D].
        teacher: anchors of every image [B, a, D]; they get no gradient.
        contrast: the student's pixels of every image [B, A, D].
        teacher_contrast: the teacher's pixels of every image [B, A, D].
        temperature: divides the similarities.
    """
    pairs = [
        naive_kl(rows, teacher_rows, columns, teacher_columns, temperature)
        for rows, teacher_rows in zip(student, teacher, strict=True)
        for columns, teacher_columns in zip(contrast, teacher_contrast, strict=True)
    ]
    return torch.stack(pairs).mean()
