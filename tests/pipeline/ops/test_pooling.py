"""Pooling without padding, by hand."""

import torch

from pipeline.ops.pooling import max_pool, mean_pool

X = torch.tensor([[[[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0], [-7.0, -8.0, -9.0]]]])
INSIDE = torch.tensor([[[True, True, True], [True, False, True], [False, False, False]]])


def test_mean_pool():
    pooled, cells = mean_pool(X, INSIDE, 2)
    torch.testing.assert_close(pooled[0, 0], torch.tensor([[-7 / 3, -4.5], [0.0, 0.0]]))
    assert cells.tolist() == [[[True, True], [False, False]]]


def test_max_pool():
    pooled, cells = max_pool(X, INSIDE, 2)
    assert pooled[0, 0].tolist() == [[-1, -3], [0, 0]]
    assert cells.tolist() == [[[True, True], [False, False]]]


def test_one_cell_larger_than_the_map():
    pooled, cells = mean_pool(X, torch.ones_like(INSIDE), 4)
    assert pooled.flatten().tolist() == [-5]
    assert cells.all()
