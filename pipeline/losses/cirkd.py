"""CIRKD: relations between the pixels of different images (Yang et al., CVPR 2022)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.ops.anchors import pick_anchors
from pipeline.ops.contrast import Contrast
from pipeline.ops.embedding import pixel_embeddings
from pipeline.ops.mean import Mean
from pipeline.ops.pairwise_similarity_kl import batch_similarity_kl
from pipeline.ops.similarity_kl import similarity_kl
from pipeline.ops.tiling import BLOCK_BYTES


def minibatch_pixel(
    student_features: Tensor,
    teacher_features: Tensor,
    valid: Tensor,
    temperature: float = 0.1,
    *,
    num_anchors: int | None = None,
    generator: torch.Generator | None = None,
    block_bytes: int = BLOCK_BYTES,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Mean:
    """Match the similarities between all pixels of every ordered pair of images.

    1/B^2 sum_ij 1/A sum_a KL(softmax(St_ij[a] / tau) || softmax(Ss_ij[a] / tau)), S_ij = f_i f_j^T,
    i = j included, where no pixel is padding; padding is inert as row and as column.
    Source: Yang et al., CVPR 2022, mini-batch pixel-to-pixel distillation.

    Args:
        student_features: [B, Ds, h, w], any floating dtype; normalised here.
        teacher_features: [B, D, h, w], no gradient; normalised here.
        valid: bool [B, h, w], False = padding.
        temperature: tau.
        num_anchors: draw that many rows of the batch instead of all; unbiased.
        generator: the random generator, needed with `num_anchors`.
        block_bytes: see `similarity_kl`.
        gather: joins the images [B, ...] of all ranks, with gradients; the images j are these, the
            images i this rank's. Default: both are this rank's.
    """
    student, teacher = pixel_embeddings(student_features), pixel_embeddings(teacher_features)
    rows = valid.flatten(1)
    if num_anchors is None and gather is None:
        # Rows and columns are the same pixels, so both directions of a pair share their products.
        return batch_similarity_kl(
            student, teacher, rows, temperature=temperature, block_bytes=block_bytes
        )
    anchors = pick_anchors(student, teacher, rows, num_anchors, generator)
    if gather is not None:
        student, teacher, rows = gather(student), gather(teacher), gather(rows)
    return similarity_kl(
        anchors.student,
        anchors.teacher,
        student,
        teacher,
        temperature=temperature,
        rows=anchors.rows,
        columns=rows,
        block_bytes=block_bytes,
    )


def memory(
    student_embedding: Tensor,
    teacher_features: Tensor,
    anchors: Tensor,
    contrast: Contrast,
    temperature: float = 0.1,
    *,
    num_anchors: int | None = None,
    generator: torch.Generator | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Mean:
    """Match the similarities of pixels to embeddings of other images, pixels or regions.

    1/A sum_a KL(softmax(t_a V^T / tau) || softmax(s_a V^T / tau)), the same V for both.
    Source: Yang et al., CVPR 2022, memory-based pixel-to-pixel and pixel-to-region distillation.

    Args:
        student_embedding: [B, D, h, w] features after the projector; normalised here. In a
            subspace D reads r, here and below.
        teacher_features: [B, D, h, w], no gradient; normalised here.
        anchors: bool [B, h, w], True = takes part as row (neither padding nor void).
        contrast: [m, D] teacher embeddings from a queue, with the columns that are usable.
        temperature: tau.
        num_anchors: draw that many rows of the batch instead of all; unbiased.
        generator: the random generator, needed with `num_anchors`.
        block_bytes: see `similarity_kl`.
    """
    student, teacher = pixel_embeddings(student_embedding), pixel_embeddings(teacher_features)
    rows = pick_anchors(student, teacher, anchors.flatten(1), num_anchors, generator)
    return similarity_kl(
        rows.student,
        rows.teacher,
        contrast.embeddings,
        contrast.embeddings,
        temperature=temperature,
        rows=rows.rows,
        columns=contrast.usable,
        block_bytes=block_bytes,
    )


class Projector(nn.Sequential):
    """Map student features [B, Ds, h, w] to what the memory holds of the teacher's, [B, D, h, w].

    Args:
        in_channels: Ds.
        hidden_channels: D.
        out_channels: D, or those of the subspace that the teacher's embeddings are stored in.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int | None = None
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, hidden_channels, 1, bias=False),
            nn.BatchNorm2d(hidden_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden_channels, out_channels or hidden_channels, 1),
        )
