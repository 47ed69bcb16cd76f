"""SKD: structure, pairwise and holistic (Liu et al., CVPR 2019, arXiv 1903.04197)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.ops.attention import attend
from pipeline.ops.embedding import pixel_embeddings, work_dtype
from pipeline.ops.mean import Mean
from pipeline.ops.pooling import max_pool


def pairwise(
    student_features: Tensor, teacher_features: Tensor, valid: Tensor, *, pool_size: int = 2
) -> Mean:
    """Sum (G_s - G_t)^2 over the pairs of cells of each image, G = f f^T.

    f are the embeddings of the features max-pooled in cells of pool_size x pool_size pixels.

    Args:
        student_features: [B, Ds, h, w], any floating dtype.
        teacher_features: [B, D, h, w], no gradient.
        valid: bool [B, h, w], False = padding.
        pool_size: edge of a cell in pixels.
    """
    student, cells = _similarities(student_features, valid, pool_size)
    teacher, _ = _similarities(teacher_features.detach(), valid, pool_size)
    # A cell of padding alone is 0 in both, and so are its similarities.
    return Mean((student - teacher).square().sum(), cells.sum(1).square().sum())


def _similarities(features: Tensor, valid: Tensor, pool_size: int) -> tuple[Tensor, Tensor]:
    pooled, cells = max_pool(features, valid, pool_size)
    embeddings = pixel_embeddings(pooled)
    with torch.autocast(embeddings.device.type, enabled=False):
        return embeddings @ embeddings.mT, cells.flatten(1)


class Discriminator(nn.Module):
    """Scores how much logits look like a teacher's, for any feature size.

    Spectrally normalised 3x3 convolutions of stride 2 with self-attention before the last.

    Args:
        num_classes: K, channels of the logits.
        width: channels of the first layer; each further one doubles them.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.near = nn.Sequential(
            *_halve(num_classes, width), *_halve(width, 2 * width), *_halve(2 * width, 4 * width)
        )
        self.attention = _SelfAttention(4 * width)
        self.far = nn.Sequential(
            *_halve(4 * width, 8 * width), spectral_norm(nn.Conv2d(8 * width, 1, 1))
        )

    def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Score each image: [B, K, h, w] logits and bool [B, h, w] to [B]; padding reads as 0."""
        logits = logits.to(work_dtype(logits)).where(valid.unsqueeze(1), 0)
        scores = self.far(self.attention(self.near(logits))).squeeze(1)
        cells = F.adaptive_max_pool2d(valid.float(), scores.shape[-2:])
        return (scores * cells).sum((1, 2)) / cells.sum((1, 2)).clamp_min(1)


def holistic(discriminator: Discriminator, student_logits: Tensor, valid: Tensor) -> Mean:
    """Sum -D(z_s) over images: what the discriminator, which does not learn here, teaches.

    Args:
        discriminator: D.
        student_logits: [B, K, h, w], any floating dtype.
        valid: bool [B, h, w], False = padding; an image of padding alone does not count.
    """
    with _frozen(discriminator):
        return _over_images(-discriminator(student_logits, valid), valid)


def discriminator_loss(
    discriminator: Discriminator, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor
) -> Mean:
    """Sum max(0, 1 - D(z_t)) + max(0, 1 + D(z_s)) over images; no gradient for the student."""
    real = discriminator(teacher_logits.detach(), valid)
    fake = discriminator(student_logits.detach(), valid)
    return _over_images(F.relu(1 - real) + F.relu(1 + fake), valid)


def _over_images(scores: Tensor, valid: Tensor) -> Mean:
    counted = valid.flatten(1).any(1)
    return Mean(scores.where(counted, 0).sum(), counted.sum())


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _halve(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
    return spectral_norm(convolution), nn.LeakyReLU(0.1)


class _SelfAttention(nn.Module):
    """x + gain * attention(x) over pixels; the gain starts at 0 (Zhang et al., ICML 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        attended = attend(self.query(x), self.key(x), self.value(x), scale=1.0)
        return x + self.gain * attended
