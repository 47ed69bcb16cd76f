"""IFVD by hand."""

import math

import pytest
import torch

from pipeline.losses.ifvd import ifvd

VOID = 255


def test_hand_worked():
    # Class 0 holds (1, 0) and (0, 1): mean (1/2, 1/2), both cosines 1/sqrt 2. Class 1 holds one
    # pixel: cosine 1. The teacher's pixels of class 0 are equal: cosines 1. The last is void.
    student = torch.tensor([[[[1.0, 0.0, 5.0, 7.0]], [[0.0, 1.0, 1.0, -7.0]]]])
    teacher = torch.tensor([[[[2.0, 2.0, 0.0, 1.0]], [[2.0, 2.0, 3.0, 0.0]]]])
    labels = torch.tensor([[[0, 0, 1, VOID]]], dtype=torch.uint8)
    mean = ifvd(student, teacher, labels, num_classes=2)
    assert mean.count == 3
    assert mean.total.item() == pytest.approx(2 * (1 - math.sqrt(0.5)) ** 2, rel=1e-5)


def test_classes_are_those_of_one_image():
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    labels = (torch.arange(18).view(2, 3, 3) % 2).to(torch.uint8)
    both = ifvd(x, y, labels, 2)
    each = [ifvd(x[i : i + 1], y[i : i + 1], labels[i : i + 1], 2) for i in (0, 1)]
    torch.testing.assert_close(both.total, each[0].total + each[1].total)


def test_void_is_inert():
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[[0, 1], [1, VOID]]], dtype=torch.uint8)
    expected = ifvd(x, y, labels, 2)
    x[..., 1, 1], y[..., 1, 1] = math.nan, math.inf
    found = ifvd(x.requires_grad_(), y, labels, 2)
    found.total.backward()
    assert found.total == expected.total
    assert x.grad.isfinite().all()
