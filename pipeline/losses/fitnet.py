"""FitNet: the teacher's features themselves (Romero et al., ICLR 2015, arXiv 1412.6550)."""

from torch import Tensor, nn

from pipeline.ops.embedding import work_dtype
from pipeline.ops.mean import Mean


def fitnet(student_features: Tensor, teacher_features: Tensor, valid: Tensor) -> Mean:
    """Sum (W F_s - F_t)^2 over channels and pixels inside the image.

    Args:
        student_features: [B, D, h, w] after the adapter W, any floating dtype.
        teacher_features: [B, D, h, w], no gradient.
        valid: bool [B, h, w], False = padding.
    """
    dtype = work_dtype(student_features)
    difference = student_features.to(dtype) - teacher_features.detach().to(dtype)
    square = difference.where(valid.unsqueeze(1), 0).square()
    return Mean(square.sum(), student_features.shape[1] * valid.sum())


class Adapter(nn.Conv2d):
    """W: a 1x1 convolution from the student's channels to the teacher's."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)
