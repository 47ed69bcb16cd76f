"""AT by hand."""

import pytest
import torch

from pipeline.losses.at import at
from pipeline.ops.attention_map import attention, power


def test_hand_worked():
    # Mean squares (3, 4) -> (.6, .8) for the student, (1, 0) for the teacher, one pixel padding.
    student = torch.tensor([[[[6.0**0.5, 2.0, 9.0]], [[0.0, 2.0, 9.0]]]])
    teacher = torch.tensor([[[[5.0, 0.0, 1.0]]]])
    valid = torch.tensor([[[True, True, False]]])
    mean = at(student, teacher, valid)
    assert mean.count == 2
    assert mean.value.item() == pytest.approx((0.4**2 + 0.8**2) / 2, rel=1e-6)


def test_attention_of_attention_is_itself():
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    once = attention(power(x), valid)
    torch.testing.assert_close(attention(once.view(2, 2, 2), valid), once)
    torch.testing.assert_close(once.norm(dim=1), torch.ones(2))
