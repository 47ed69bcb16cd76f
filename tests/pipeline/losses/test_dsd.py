"""DSD by hand."""

import math

import pytest
import torch

from pipeline.losses.dsd import csd, psd
from pipeline.ops.attention_map import attention, power


def test_csd_hand_worked():
    # One cell a pixel, temperature 1. Student: both classes (1/2, 1/2): C = all 1/2.
    # Teacher: (3/4, 1/4) and (1/4, 3/4): C = [[10, 6], [6, 10]] / 16. All four differ by 1/8.
    log3 = math.log(3.0)
    student = torch.zeros(1, 2, 1, 2)
    teacher = torch.tensor([[[[log3, 0.0]], [[0.0, log3]]]])
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    mean = csd(student, teacher, valid, temperature=1.0, pool_size=1)
    assert mean.count == 4
    assert mean.value.item() == pytest.approx(1 / 64, rel=1e-5)


def test_csd_pools_cells_of_two_by_two():
    logits = torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    pooled = torch.nn.functional.avg_pool2d(logits, 2)
    teacher = torch.randn(1, 3, 1, 2, generator=torch.Generator().manual_seed(1))
    coarse, fine = (torch.ones(1, h, 2 * h, dtype=torch.bool) for h in (1, 2))
    expected = csd(pooled, teacher, coarse, pool_size=1)
    spread = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(csd(logits, spread, fine).value, expected.value)


def test_psd_hand_worked():
    # Two layers, maps over two pixels. Student: a = (1, 0), (0, 1): r = (-1, 1)/sqrt 2.
    # Teacher: a = (0, 1), (1, 0): r = (1, -1)/sqrt 2. Each pixel differs by sqrt 2.
    left, right = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 3.0]]])
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    mean = psd([left, right], [right, left], valid)
    assert mean.count == 2
    assert mean.value.item() == pytest.approx(2.0, rel=1e-6)


def test_psd_takes_normalised_maps_of_the_teacher():
    g = torch.Generator().manual_seed(0)
    student, teacher = (
        [power(torch.randn(2, 3, 2, 2, generator=g)) for _ in range(3)] for _ in "st"
    )
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    stored = [attention(x, valid).view(2, 2, 2) for x in teacher]
    torch.testing.assert_close(
        psd(student, stored, valid).value, psd(student, teacher, valid).value
    )


def test_psd_learns_nothing_from_the_rounding_of_a_stored_map():
    """A teacher without an auxiliary head has its logits in that place, stored in float16."""
    g = torch.Generator().manual_seed(0)
    student, teacher = (
        [power(torch.randn(2, 3, 8, 8, generator=g)) for _ in range(3)] for _ in "st"
    )
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    stored = attention(teacher[2], valid).view(2, 8, 8).half().float()
    rounded = psd(student, [stored, *teacher[1:]], valid).value
    exact = psd(student, [teacher[2], *teacher[1:]], valid).value
    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=0)


def test_psd_needs_the_same_layers():
    one = torch.ones(1, 1, 2)
    with pytest.raises(ValueError, match="2 of the student and 3 of the teacher"):
        psd([one] * 2, [one] * 3, torch.ones(1, 1, 2, dtype=torch.bool))
