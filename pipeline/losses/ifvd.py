"""IFVD: how far each pixel lies from the mean of its class (Wang et al., ECCV 2020)."""

import torch
from torch import Tensor

from pipeline.ops.embedding import embed, work_dtype
from pipeline.ops.mean import Mean


def ifvd(
    student_features: Tensor, teacher_features: Tensor, labels: Tensor, num_classes: int
) -> Mean:
    """Sum (m_s - m_t)^2 over labelled pixels, m(p) = cos(F(p), mean of F over p's class).

    The mean is taken within the image. Void and padding have no class: they are inert.

    Args:
        student_features: [B, Ds, h, w], any floating dtype.
        teacher_features: [B, D, h, w], no gradient.
        labels: uint8 [B, h, w] at the feature grid, 255 = void or padding.
        num_classes: K.
    """
    student = _cosines(student_features, labels, num_classes)
    teacher = _cosines(teacher_features.detach(), labels, num_classes)
    labelled = labels.flatten(1) < num_classes
    return Mean((student - teacher).where(labelled, 0).square().sum(), labelled.sum())


def _cosines(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Cosine of each pixel with its class mean: [B, h*w]; 0 where there is no class."""
    labels = labels.flatten(1).unsqueeze(2)
    pixels = features.to(work_dtype(features)).flatten(2).mT
    pixels = pixels.where(labels < num_classes, 0)
    member = (labels == torch.arange(num_classes, device=labels.device)).to(pixels.dtype)
    with torch.autocast(pixels.device.type, enabled=False):
        # The sum has the direction of the mean, and a cosine sees nothing else.
        directions = embed(member.mT @ pixels, dim=2)
        own = member @ directions
    return (embed(pixels, dim=2) * own).sum(2)
