"""Logits distillation: laws and a hand-worked number."""

import math

import pytest
import torch

from pipeline.losses.kd import kd


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INSIDE = torch.tensor([[[True, True, False]], [[True, False, True]]])


def test_hand_worked():
    # T = 2: teacher logits (2 ln 3, 0) -> (3/4, 1/4); student (0, 0) -> (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2), times T^2 = 4.
    teacher = torch.tensor([2 * math.log(3.0), 0.0]).view(1, 2, 1, 1)
    mean = kd(torch.zeros(1, 2, 1, 1), teacher, torch.ones(1, 1, 1, dtype=torch.bool), 2.0)
    assert mean.value.item() == pytest.approx(3 * math.log(1.5) + math.log(0.5), rel=1e-6)


def test_mean_over_valid_pixels():
    student, teacher = draw(0, 2, 4, 1, 3), draw(1, 2, 4, 1, 3)
    mean = kd(student, teacher, INSIDE, 1.0)
    total = 0.0
    for b, _, x in INSIDE.nonzero():
        p = teacher[b, :, 0, x].softmax(0)
        total += (p * (p.log() - student[b, :, 0, x].softmax(0).log())).sum()
    assert mean.count == 4
    torch.testing.assert_close(mean.value, total / 4)


def test_zero_at_equality_positive_elsewhere():
    x, y = draw(2, 2, 4, 1, 3), draw(3, 2, 4, 1, 3)
    assert kd(x, x, INSIDE, 3.0).value == 0
    assert kd(x, y, INSIDE, 3.0).value > 0


def test_a_constant_added_to_logits_changes_nothing():
    x, y = draw(4, 2, 4, 1, 3), draw(5, 2, 4, 1, 3)
    torch.testing.assert_close(kd(x + 100, y - 100, INSIDE, 2.0).value, kd(x, y, INSIDE, 2.0).value)


def test_padding_is_inert():
    x, y = draw(6, 2, 4, 1, 3), draw(7, 2, 4, 1, 3)
    expected = kd(x, y, INSIDE, 2.0).value
    x.permute(0, 2, 3, 1)[~INSIDE], y.permute(0, 2, 3, 1)[~INSIDE] = 1e3, -1e3
    x.requires_grad_()
    found = kd(x, y, INSIDE, 2.0).value
    found.backward()
    torch.testing.assert_close(found, expected)
    assert (x.grad.permute(0, 2, 3, 1)[~INSIDE] == 0).all()


def test_nothing_valid_is_zero():
    x = draw(8, 2, 4, 1, 3).requires_grad_()
    mean = kd(x, draw(9, 2, 4, 1, 3), torch.zeros_like(INSIDE), 1.0)
    mean.value.backward()
    assert mean.value == 0
    assert (x.grad == 0).all()


def test_huge_logits_are_finite():
    x, y = 1e4 * draw(10, 2, 4, 1, 3).float(), 1e4 * draw(11, 2, 4, 1, 3).float()
    mean = kd(x.requires_grad_(), y, INSIDE, 1.0)
    mean.value.backward()
    assert mean.value.isfinite()
    assert x.grad.isfinite().all()


def test_half_precision_logits_are_read_in_float32():
    x, y = draw(12, 2, 4, 1, 3).bfloat16(), draw(13, 2, 4, 1, 3).half()
    found = kd(x, y, INSIDE, 1.0).value
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, kd(x.double(), y.double(), INSIDE, 1.0).value.float())


def test_gradcheck_and_no_gradient_for_the_teacher():
    x, y = draw(14, 2, 3, 1, 3).requires_grad_(), draw(15, 2, 3, 1, 3).requires_grad_()
    torch.autograd.gradcheck(lambda x: kd(x, y.detach(), INSIDE, 2.0).value, (x,))
    kd(x, y, INSIDE, 2.0).value.backward()
    assert y.grad is None
