"""Embeddings have length one at any scale, and zero vectors stay finite."""

import pytest
import torch

from pipeline.ops.embedding import embed, pixel_embeddings


@pytest.mark.parametrize("scale", [1e-25, 1e-18, 1.0, 1e18, 1e36])
def test_direction_at_any_scale(scale):
    x = torch.tensor([[3.0, 4.0]]) * scale
    torch.testing.assert_close(embed(x), torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_is_float32_at_least(dtype):
    x = torch.ones(1, 4, dtype=dtype)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    torch.testing.assert_close(embed(x), torch.full((1, 4), 0.5, dtype=expected))


def test_zero_vector_stays_zero_with_a_finite_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    embedding = embed(x)
    embedding.sum().backward()
    assert (embedding == 0).all()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() <= 1


def test_gradcheck():
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.autograd.gradcheck(embed, (x.requires_grad_(),))


def test_pixels_are_rows():
    x = torch.arange(1.0, 13.0).view(1, 2, 2, 3)
    found = pixel_embeddings(x)
    assert found.shape == (1, 6, 2)
    torch.testing.assert_close(found[0, 4], embed(x[0, :, 1, 1], dim=0))
