"""CWD by hand."""

import math

import pytest
import torch

from pipeline.losses.cwd import cwd


def test_hand_worked():
    # T = 2, two channels over two pixels and one of padding. Channel 0: teacher (3/4, 1/4),
    # student (1/2, 1/2): KL = 3/4 ln 3/2 + 1/4 ln 1/2. Channel 1 agrees up to a constant.
    teacher = torch.tensor([[[[2 * math.log(3.0), 0.0, 9.0]], [[1.0, 2.0, 0.0]]]])
    student = torch.tensor([[[[0.0, 0.0, -9.0]], [[4.0, 5.0, 0.0]]]])
    mean = cwd(student, teacher, torch.tensor([[[True, True, False]]]), temperature=2.0)
    assert mean.count == 2
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert mean.value.item() == pytest.approx(4 * kl / 2, rel=1e-5)


def test_a_constant_per_channel_changes_nothing():
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 2, 2, generator=g).double() for _ in range(2))
    shift = torch.tensor([3.0, -8.0, 11.0]).view(1, 3, 1, 1)
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    torch.testing.assert_close(
        cwd(student + shift, teacher - shift, valid).value, cwd(student, teacher, valid).value
    )
