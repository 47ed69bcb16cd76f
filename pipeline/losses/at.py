"""AT: where the features are strong (Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928)."""

from torch import Tensor

from pipeline.ops.attention_map import attention, power
from pipeline.ops.mean import Mean


def at(student_features: Tensor, teacher_features: Tensor, valid: Tensor) -> Mean:
    """Sum (a_s - a_t)^2 over pixels, a = L2(vec(mean_c F^2)) of each image.

    Args:
        student_features: [B, Ds, h, w], any floating dtype.
        teacher_features: [B, D, h, w], no gradient.
        valid: bool [B, h, w], False = padding.
    """
    student = attention(power(student_features), valid)
    teacher = attention(power(teacher_features.detach()), valid)
    return Mean((student - teacher).square().sum(), valid.sum())
