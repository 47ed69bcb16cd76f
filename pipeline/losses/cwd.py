"""CWD: where in the image each channel looks (Shu et al., ICCV 2021, arXiv 2011.13256)."""

import torch
from torch import Tensor

from pipeline.ops.embedding import work_dtype
from pipeline.ops.mean import Mean


def cwd(student: Tensor, teacher: Tensor, valid: Tensor, temperature: float = 4.0) -> Mean:
    """Sum T^2 * KL(softmax_p(t_c / T) || softmax_p(s_c / T)) over images and channels c.

    The softmax runs over the pixels p inside the image. For logits, and for features of equal
    channel number (put a 1x1 convolution before it where they differ).

    Args:
        student: [B, C, h, w], any floating dtype.
        teacher: [B, C, h, w], no gradient.
        valid: bool [B, h, w], False = padding; an image of padding alone does not count.
        temperature: T > 0.
    """
    log_student = spatial_log_softmax(student, valid, temperature)
    log_teacher = spatial_log_softmax(teacher.detach(), valid, temperature)
    kl = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    counted = valid.flatten(1).any(1)
    # An image of padding alone is uniform in both: its KL is 0.
    return Mean(temperature**2 * kl.sum(), student.shape[1] * counted.sum())


def spatial_log_softmax(x: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Log-softmax of `x / temperature` over the valid pixels: [B, C, h, w] to [B, C, h*w].

    Padding gets a log-probability that is finite and whose exponential is 0.
    """
    x = x.to(work_dtype(x)) / temperature
    lowest = torch.finfo(x.dtype).min / 4
    return x.where(valid.unsqueeze(1), lowest).flatten(2).log_softmax(-1)
