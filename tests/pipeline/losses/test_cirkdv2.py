"""CIRKDV2's channel terms against loops and by hand."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.cirkdv2 import (
    ContextAdapter,
    channel_memory,
    channel_minibatch,
    channel_mse,
    contextual_fitnet,
)
from pipeline.losses.fitnet import fitnet
from pipeline.ops.contrast import Contrast
from pipeline.ops.embedding import channel_embeddings


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CELLS = torch.ones(2, 2, 3, dtype=torch.bool)


def kl(student, teacher):
    p, q = teacher.softmax(1), student.softmax(1)
    return (p * (p / q).log()).sum()


def test_minibatch_equals_loops_over_pairs():
    student, teacher = draw(0, 2, 4, 2, 3), draw(1, 2, 4, 2, 3)
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    total = sum(kl(s[i] @ s[j].T / 0.1, t[i] @ t[j].T / 0.1) for i in range(2) for j in range(2))
    mean = channel_minibatch(student, teacher, CELLS, 0.1)
    assert mean.count == 2 * 2 * 4  # B^2 pairs of D rows
    torch.testing.assert_close(mean.total, total)


def test_memory_equals_the_dense_formula():
    student, teacher = draw(2, 2, 4, 2, 3), draw(3, 2, 4, 2, 3)
    bank = F.normalize(draw(4, 5, 6), dim=1)
    usable = torch.tensor([True, False, True, True, True])
    contrast = Contrast(bank, usable, torch.zeros(5, dtype=torch.int64))
    s, t = (F.normalize(x.flatten(2), dim=2).flatten(0, 1) for x in (student, teacher))
    mean = channel_memory(student, teacher, CELLS, contrast, 0.1)
    assert mean.count == 2 * 4
    expected = kl(s @ bank[usable].T / 0.1, t @ bank[usable].T / 0.1)
    torch.testing.assert_close(mean.total, expected)


def test_mse_hand_worked():
    # Channel maps (3, 4) -> (.6, .8) and (0, 2) -> (0, 1): squares .36 + .04 over two cells.
    student, teacher = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    mean = channel_mse(student, teacher, torch.ones(1, 1, 2, dtype=torch.bool))
    assert mean.value.item() == pytest.approx(0.4 / 2, rel=1e-6)


def test_channel_embeddings_ignore_padding():
    x = draw(5, 1, 2, 1, 3)
    cells = torch.tensor([[[True, True, False]]])
    found = channel_embeddings(x, cells)
    torch.testing.assert_close(found[..., :2], F.normalize(x[..., :2].flatten(2), dim=2))
    assert (found[..., 2] == 0).all()


@pytest.fixture
def context():
    torch.manual_seed(0)
    return ContextAdapter(4, 5).double()


def test_context_is_softmax_attention(context):
    x = draw(6, 1, 4, 1, 3)
    q, k, v = (layer(x).flatten(2)[0].T for layer in (context.query, context.key, context.value))
    attended = ((q @ k.T / 2**0.5).softmax(1) @ v).T.view(1, 2, 1, 3)
    expected = context.adapter(x + context.out(attended))
    torch.testing.assert_close(context(x, torch.ones(1, 1, 3, dtype=torch.bool)), expected)


def test_context_leaves_padding_out(context):
    student, teacher = draw(7, 2, 4, 2, 3), draw(8, 2, 5, 2, 3)
    valid = torch.tensor([[[True, True, False]] * 2, [[False] * 3] * 2])
    expected = contextual_fitnet(context, student, teacher, valid)
    student[0, :, :, 2], student[1] = 1e3, -1e3
    found = contextual_fitnet(context, student.requires_grad_(), teacher, valid)
    found.value.backward()
    torch.testing.assert_close(found.total, expected.total)
    assert found.count == 5 * 4
    assert student.grad.isfinite().all()
    assert (student.grad[1] == 0).all()
    small = contextual_fitnet(context, student[:1, ..., :2], teacher[:1, ..., :2], valid[:1, :, :2])
    torch.testing.assert_close(found.total, small.total)


def test_contextual_fitnet_is_fitnet_of_the_context(context):
    student, teacher = draw(9, 2, 4, 2, 3), draw(10, 2, 5, 2, 3)
    expected = fitnet(context(student, CELLS), teacher, CELLS)
    torch.testing.assert_close(
        contextual_fitnet(context, student, teacher, CELLS).value, expected.value
    )
