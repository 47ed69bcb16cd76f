"""FitNet by hand."""

import torch

from pipeline.losses.fitnet import Adapter, fitnet


def test_hand_worked():
    student = torch.tensor([[[[1.0, 2.0]], [[0.0, 5.0]]]])
    teacher = torch.tensor([[[[3.0, 0.0]], [[1.0, 0.0]]]])
    mean = fitnet(student, teacher, torch.tensor([[[True, False]]]))
    assert mean.count == 2
    assert mean.value == (4 + 1) / 2


def test_adapter_changes_channels_only():
    assert Adapter(3, 5)(torch.zeros(2, 3, 4, 7)).shape == (2, 5, 4, 7)
