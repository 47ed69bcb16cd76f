"""Cross-entropy: void pixels are inert."""

import math

import pytest
import torch

from pipeline.losses.cross_entropy import cross_entropy

VOID = 255


def test_hand_worked():
    # Logits (ln 3, 0): -ln 3/4 for class 0, -ln 1/4 for class 1; the void pixel does not count.
    logits = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    mean = cross_entropy(logits, torch.tensor([[[0, 1, VOID]]], dtype=torch.uint8))
    assert mean.count == 2
    assert mean.value.item() == pytest.approx(-0.5 * math.log(3 / 16), rel=1e-6)


def test_void_is_inert():
    logits = torch.randn(1, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[[2, VOID]]], dtype=torch.uint8)
    expected = cross_entropy(logits, labels).value
    logits[..., 1] = 1e4
    found = cross_entropy(logits.requires_grad_(), labels).value
    found.backward()
    assert found == expected
    assert (logits.grad[..., 1] == 0).all()


def test_only_void_is_zero():
    logits = torch.ones(1, 3, 1, 2, requires_grad=True)
    mean = cross_entropy(logits, torch.full((1, 1, 2), VOID, dtype=torch.uint8))
    mean.value.backward()
    assert mean.value == 0
    assert (logits.grad == 0).all()


def test_half_precision_logits_are_read_in_float32():
    logits = torch.full((1, 2, 1, 1), 2.0, dtype=torch.bfloat16)
    mean = cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.uint8))
    assert mean.total.dtype == torch.float32
    assert mean.value.item() == pytest.approx(math.log(2), rel=1e-6)
