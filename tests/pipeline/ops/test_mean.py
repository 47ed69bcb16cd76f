"""A mean of merged sums."""

import torch

from pipeline.ops.mean import Mean


def test_value():
    assert Mean(torch.tensor(6.0), torch.tensor(4)).value == 1.5


def test_nothing_counted_is_zero():
    assert Mean(torch.tensor(0.0), torch.tensor(0)).value == 0
