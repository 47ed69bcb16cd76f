"""A student's maps at the store's grid: the same tensors, constants kept, padding inert."""

import pytest
import torch

from pipeline.distillation.grid import to_grid
from pipeline.models.network import Output

FACTORS = [2, 0.5, 1.5]
"""Cells of the student along a cell of the store: strides 4, 16 and 16/3 over 8."""


def output_at(factor: float, seed: int = 0) -> Output:
    generator = torch.Generator().manual_seed(seed)
    size = (round(6 * factor), round(8 * factor))
    maps = [torch.randn(2, channels, *size, generator=generator) for channels in (5, 7, 5)]
    return Output(*(x.double().requires_grad_() for x in maps))


def test_equal_grids_give_the_very_same_tensors() -> None:
    output = output_at(1)
    assert to_grid(output, torch.zeros(2, 6, 8, dtype=torch.bool)) is output


def test_finer_cells_are_averaged_and_coarser_ones_interpolated() -> None:
    valid = torch.ones(2, 6, 8, dtype=torch.bool)
    fine, coarse = output_at(2), output_at(0.5)
    averaged = torch.nn.functional.avg_pool2d(fine.logits, 2)
    torch.testing.assert_close(to_grid(fine, valid).logits, averaged)
    bilinear = torch.nn.functional.interpolate(coarse.features, (6, 8), mode="bilinear")
    torch.testing.assert_close(to_grid(coarse, valid).features, bilinear)
    assert to_grid(fine._replace(auxiliary=None), valid).auxiliary is None


@pytest.mark.parametrize("factor", FACTORS)
def test_padding_is_inert_and_constants_stay(factor: float) -> None:
    """What lies under padding alone neither changes a valid cell nor gets a gradient of one."""
    valid = torch.ones(2, 6, 8, dtype=torch.bool)
    valid[:, 4:], valid[:, :, 4:] = False, False
    output = output_at(factor)
    rows, columns = round(4 * factor + 0.49), round(4 * factor + 0.49)
    inside = torch.zeros_like(output.features, dtype=torch.bool)
    inside[..., :rows, :columns] = True
    changed = Output(*(torch.where(inside[:, :1], x, 1e6) for x in output))
    at = valid.unsqueeze(1)
    for before, after in zip(to_grid(output, valid), to_grid(changed, valid), strict=True):
        assert before.shape[-2:] == (6, 8)
        assert torch.equal(before * at, after * at)
        assert torch.isfinite(after).all()
    (to_grid(output, valid).features * at).sum().backward()
    assert output.features.grad[~inside].abs().sum() == 0
    assert output.features.grad[inside].min() > 0
    ones = Output(*(torch.ones_like(x) for x in output))
    torch.testing.assert_close(to_grid(ones, valid).logits * at, at.expand(2, 5, 6, 8).double())
