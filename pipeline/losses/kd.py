"""Logits distillation, pixel by pixel."""

from torch import Tensor

from pipeline.ops.embedding import work_dtype
from pipeline.ops.mean import Mean


def kd(
    student_logits: Tensor, teacher_logits: Tensor, valid: Tensor, temperature: float = 1.0
) -> Mean:
    """Sum T^2 * KL(softmax(z_t / T) || softmax(z_s / T)) over the pixels inside the image.

    Source: Hinton et al., arXiv 1503.02531, per pixel as in Yang et al., CVPR 2022.

    Args:
        student_logits: [B, K, h, w], any floating dtype.
        teacher_logits: [B, K, h, w], no gradient.
        valid: bool [B, h, w], False = padding.
        temperature: T > 0.
    """
    student = log_softmax(student_logits, temperature)
    teacher = log_softmax(teacher_logits.detach(), temperature)
    kl = (teacher.exp() * (teacher - student)).sum(1)
    return Mean(temperature**2 * kl.where(valid, 0).sum(), valid.sum())


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Take the log-softmax over classes of logits / temperature, in float32 at least."""
    return (logits.to(work_dtype(logits)) / temperature).log_softmax(1)
