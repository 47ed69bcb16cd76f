"""A student's maps at the grid of the store, where its stride is another than the teacher's."""

from __future__ import annotations

from torch import Tensor

from pipeline.models.network import Output, resample


def to_grid(output: Output, valid: Tensor) -> Output:
    """Bring a student's output to the store's grid: means of finer cells, bilinear of coarser ones.

    Cells of the student that lie on padding alone are left out of means and interpolation, so that
    padding stays inert.

    Args:
        output: of the student.
        valid: bool [B, h, w] at the store's grid, False on padding.

    Returns:
        The very same tensors where the grids are equal.
    """
    grid, own = valid.shape[-2:], output.logits.shape[-2:]
    if grid == own:
        return output
    weight = (resample(valid.unsqueeze(1).float(), own) > 0).float()
    total = resample(weight, grid).clamp_min(1e-6)

    def average(maps: Tensor) -> Tensor:
        return resample(maps * weight, grid) / total

    auxiliary = None if output.auxiliary is None else average(output.auxiliary)
    return Output(average(output.logits), average(output.features), auxiliary)
