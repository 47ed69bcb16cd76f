"""DSD: double similarity, of pixels between layers and of classes (Feng et al., TIP 2021)."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from pipeline.losses.cwd import spatial_log_softmax
from pipeline.ops.attention_map import attention
from pipeline.ops.embedding import embed
from pipeline.ops.mean import Mean
from pipeline.ops.pooling import mean_pool

EQUAL = 2**-8
"""Maps of length one that differ by less are one map, rounded."""


def csd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    valid: Tensor,
    temperature: float = 4.0,
    *,
    pool_size: int = 2,
) -> Mean:
    """Sum (C_s - C_t)^2 over class pairs of each image, C = P P^T.

    P [K, cells] are the softmaxes over cells of the mean-pooled logits / temperature.

    Args:
        student_logits: [B, K, h, w], any floating dtype.
        teacher_logits: [B, K, h, w], no gradient.
        valid: bool [B, h, w], False = padding; an image of padding alone does not count.
        temperature: divides the logits, > 0.
        pool_size: edge of a cell in pixels.
    """
    student = _correlations(student_logits, valid, temperature, pool_size)
    teacher = _correlations(teacher_logits.detach(), valid, temperature, pool_size)
    counted = valid.flatten(1).any(1)
    # An image of padding alone is uniform in both.
    square = (student - teacher).square()
    return Mean(square.sum(), student_logits.shape[1] ** 2 * counted.sum())


def _correlations(logits: Tensor, valid: Tensor, temperature: float, pool_size: int) -> Tensor:
    pooled, cells = mean_pool(logits, valid, pool_size)
    probabilities = spatial_log_softmax(pooled, cells, temperature).exp()
    with torch.autocast(logits.device.type, enabled=False):
        return probabilities @ probabilities.mT


def psd(student_powers: Sequence[Tensor], teacher_powers: Sequence[Tensor], valid: Tensor) -> Mean:
    """Sum mean_mn (r_s - r_t)^2 over pixels, r_mn = L2(a_n - a_m) for each pair of layers.

    a = L2(vec(power)) of each image; the layers are auxiliary logits, features and logits.

    Args:
        student_powers: of each layer, mean squares over channels [B, h, w] (`attention_map.power`).
        teacher_powers: the same, no gradient; a map that is normalised already serves as well.
        valid: bool [B, h, w], False = padding.

    Raises:
        ValueError: fewer than two layers, or not as many of both.
    """
    if len(student_powers) != len(teacher_powers) or len(student_powers) < 2:
        raise ValueError(
            "psd: expected the same two or more layers of both networks, found "
            f"{len(student_powers)} of the student and {len(teacher_powers)} of the teacher"
        )
    student = _residuals(student_powers, valid)
    teacher = _residuals([power.detach() for power in teacher_powers], valid)
    return Mean((student - teacher).square().mean(0).sum(), valid.sum())


def _residuals(powers: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Embed the differences of maps, [pairs of layers, B, h*w]; of equal ones none is left.

    Logits that stand for an auxiliary head's were stored in another precision than themselves.
    """
    maps = [attention(power, valid) for power in powers]
    differences = [later - earlier for earlier, later in combinations(maps, 2)]
    lengths = [torch.linalg.vector_norm(one, dim=1, keepdim=True) for one in differences]
    kept = [one.where(x > EQUAL, 0) for one, x in zip(differences, lengths, strict=True)]
    return torch.stack([embed(one) for one in kept])
