"""CIRKDV2: relations between the channels of different images (Yang et al., repository CIRKD).

All terms but the contextual one take maps pooled by `mean_pool(..., CHANNEL_POOL)`; the student's
pass a projector to the teacher's channels after the pooling.
"""

from torch import Tensor, nn

from pipeline.losses.fitnet import fitnet
from pipeline.ops.attention import attend
from pipeline.ops.contrast import Contrast
from pipeline.ops.embedding import channel_embeddings
from pipeline.ops.mean import Mean
from pipeline.ops.pairwise_similarity_kl import batch_similarity_kl
from pipeline.ops.similarity_kl import similarity_kl
from pipeline.ops.tiling import BLOCK_BYTES


def channel_minibatch(
    student: Tensor,
    teacher: Tensor,
    cells: Tensor,
    temperature: float = 0.1,
    *,
    block_bytes: int = BLOCK_BYTES,
) -> Mean:
    """Match the similarities between all channels of every ordered pair of images.

    1/B^2 sum_ij 1/D sum_c KL(softmax(Ct_ij[c] / tau) || softmax(Cs_ij[c] / tau)), C_ij = g_i g_j^T
    with g the channel embeddings, i = j included. An image of padding alone is inert.

    Args:
        student: [B, D, h, w] pooled and projected, any floating dtype.
        teacher: [B, D, h, w] pooled, no gradient.
        cells: bool [B, h, w], False = a cell of padding alone.
        temperature: tau.
        block_bytes: see `similarity_kl`.
    """
    student, teacher = channel_embeddings(student, cells), channel_embeddings(teacher, cells)
    return batch_similarity_kl(
        student,
        teacher,
        _of_channels(cells, student),
        temperature=temperature,
        block_bytes=block_bytes,
    )


def channel_memory(
    student: Tensor,
    teacher: Tensor,
    cells: Tensor,
    contrast: Contrast,
    temperature: float = 0.1,
    *,
    block_bytes: int = BLOCK_BYTES,
) -> Mean:
    """Match the similarities of channels to teacher channel embeddings of other images.

    Args:
        student: [B, D, h, w] pooled and projected, any floating dtype.
        teacher: [B, D, h, w] pooled, no gradient.
        cells: bool [B, h, w], False = a cell of padding alone.
        contrast: [m, h*w], from a queue of one class and dim h*w.
        temperature: tau.
        block_bytes: see `similarity_kl`.
    """
    student, teacher = channel_embeddings(student, cells), channel_embeddings(teacher, cells)
    return similarity_kl(
        student.flatten(0, 1),
        teacher.flatten(0, 1),
        contrast.embeddings,
        contrast.embeddings,
        temperature=temperature,
        rows=_of_channels(cells, student).flatten(),
        columns=contrast.usable,
        block_bytes=block_bytes,
    )


def channel_mse(student: Tensor, teacher: Tensor, cells: Tensor) -> Mean:
    """Sum (g_s - g_t)^2 over channels and valid cells; arguments as in `channel_minibatch`."""
    difference = channel_embeddings(student, cells) - channel_embeddings(teacher.detach(), cells)
    return Mean(difference.square().sum(), student.shape[1] * cells.sum())


def contextual_fitnet(
    context: "ContextAdapter", student_features: Tensor, teacher_features: Tensor, valid: Tensor
) -> Mean:
    """FitNet's sum, of student features that have attended to all others of their image.

    Args:
        context: non-local attention and W, beside the student.
        student_features: [B, Ds, h, w], any floating dtype.
        teacher_features: [B, D, h, w], no gradient.
        valid: bool [B, h, w], False = padding.
    """
    return fitnet(context(student_features, valid), teacher_features, valid)


class ContextAdapter(nn.Module):
    """Non-local attention (Wang et al., CVPR 2018), then a 1x1 convolution to D channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = max(1, in_channels // 2)
        self.query = nn.Conv2d(in_channels, inner, 1)
        self.key = nn.Conv2d(in_channels, inner, 1)
        self.value = nn.Conv2d(in_channels, inner, 1)
        self.out = nn.Conv2d(inner, in_channels, 1)
        self.adapter = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Map [B, Ds, h, w] to [B, D, h, w]; no pixel attends to padding."""
        features = features.where(valid.unsqueeze(1), 0)
        # A pixel of an image of padding alone attends to everything, or softmax would be NaN.
        mask = valid.flatten(1)
        mask = (mask | ~mask.any(1, keepdim=True))[:, None, None]
        context = self.out(
            attend(self.query(features), self.key(features), self.value(features), mask)
        )
        return self.adapter(features + context)


def _of_channels(cells: Tensor, embeddings: Tensor) -> Tensor:
    """Which channels take part: all of an image with a cell inside, bool [B, D]."""
    return cells.flatten(1).any(1, keepdim=True).expand(embeddings.shape[:2])
