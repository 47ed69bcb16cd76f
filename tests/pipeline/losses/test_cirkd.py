"""CIRKD's terms against the paper's formulas, pixel by pixel."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.cirkd import Projector, memory, minibatch_pixel
from pipeline.ops.contrast import Contrast


def draw(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def pairs(student, teacher, valid, tau):
    """1/B^2 sum_ij mean_a KL over the pixels inside, as in the paper, by loops."""
    total, count = 0.0, 0
    for i in range(len(student)):
        for j in range(len(student)):
            s, t = (
                (
                    F.normalize(x[i][:, valid[i]], dim=0).T
                    @ F.normalize(x[j][:, valid[j]], dim=0)
                    / tau
                ).log_softmax(1)
                for x in (student, teacher)
            )
            total = total + (t.exp() * (t - s)).sum()
            count += int(valid[i].sum())
    return total / count, count


@pytest.mark.parametrize("padded", [False, True])
def test_minibatch_equals_loops_over_pairs(padded):
    student, teacher = draw(0, 3, 4, 2, 3).requires_grad_(), draw(1, 3, 6, 2, 3)
    valid = torch.ones(3, 2, 3, dtype=torch.bool)
    if padded:
        valid[1, :, 2], valid[2, 1] = False, False
    mean = minibatch_pixel(student, teacher, valid, 0.1, block_bytes=300)
    found = torch.autograd.grad(mean.value, student)[0]
    value, count = pairs(student, teacher, valid, 0.1)
    assert mean.count == count
    torch.testing.assert_close(mean.value, value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        found, torch.autograd.grad(value, student)[0], rtol=1e-10, atol=1e-10
    )


def test_minibatch_without_padding_is_the_papers_mean():
    student, teacher = draw(2, 2, 4, 2, 2), draw(3, 2, 4, 2, 2)
    mean = minibatch_pixel(student, teacher, torch.ones(2, 2, 2, dtype=torch.bool), 0.1)
    assert mean.count == 2 * 2 * 4  # B^2 pairs of A rows


def test_minibatch_gradcheck():
    student, teacher = draw(4, 2, 3, 1, 3).requires_grad_(), draw(5, 2, 3, 1, 3)
    valid = torch.tensor([[[True, True, False]], [[True, True, True]]])
    torch.autograd.gradcheck(lambda x: minibatch_pixel(x, teacher, valid, 0.5).value, (student,))


def contrast(seed, num, channels):
    embeddings = F.normalize(draw(seed, num, channels), dim=1)
    usable = torch.arange(num) % 3 != 0
    return Contrast(embeddings, usable, torch.zeros(num, dtype=torch.int64))


def test_memory_equals_the_dense_formula():
    student, teacher = draw(6, 2, 4, 2, 3).requires_grad_(), draw(7, 2, 4, 2, 3)
    anchors = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    bank = contrast(8, 9, 4)
    mean = memory(student, teacher, anchors, bank, 0.1)
    s, t = (
        (
            F.normalize(x, dim=1).permute(0, 2, 3, 1)[anchors]
            @ bank.embeddings[bank.usable].T
            / 0.1
        ).log_softmax(1)
        for x in (student, teacher)
    )
    expected = (t.exp() * (t - s)).sum(1).mean()
    assert mean.count == anchors.sum()
    torch.testing.assert_close(mean.value, expected, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(mean.value, student)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, student)[0])


def test_memory_of_nothing_usable_is_zero():
    bank = contrast(9, 5, 4)._replace(usable=torch.zeros(5, dtype=torch.bool))
    student = draw(10, 1, 4, 2, 2).requires_grad_()
    mean = memory(student, draw(11, 1, 4, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), bank)
    mean.value.backward()
    assert mean.value == 0
    assert (student.grad == 0).all()


@pytest.mark.parametrize("term", ["minibatch", "memory"])
def test_zero_norm_pixels_are_finite(term):
    student, teacher = draw(12, 2, 4, 2, 2).float(), draw(13, 2, 4, 2, 2).float()
    student[0, :, 0, 0], teacher[1, :, 1, 1] = 0, 0
    student.requires_grad_()
    everywhere = torch.ones(2, 2, 2, dtype=torch.bool)
    if term == "memory":
        bank = contrast(14, 5, 4)
        bank = bank._replace(embeddings=bank.embeddings.float())
        mean = memory(student, teacher, everywhere, bank)
    else:
        mean = minibatch_pixel(student, teacher, everywhere)
    mean.value.backward()
    assert mean.value.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 100


@pytest.mark.parametrize("term", ["minibatch", "memory"])
def test_random_anchors_are_unbiased(term):
    student, teacher = draw(15, 2, 3, 2, 3), draw(16, 2, 3, 2, 3)
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    mask[0, 0], mask[1, 1, 2] = False, False
    g = torch.Generator().manual_seed(1)

    def loss(**kwargs):
        if term == "memory":
            return memory(student, teacher, mask, contrast(17, 6, 3), **kwargs).value
        return minibatch_pixel(student, teacher, mask, **kwargs).value

    full = loss()
    draws = torch.stack([loss(num_anchors=3, generator=g) for _ in range(1500)])
    deviation = draws.std() / len(draws) ** 0.5
    assert draws.std() > 0.01 * full
    assert abs(draws.mean() - full) < 4 * deviation
    torch.testing.assert_close(loss(num_anchors=8, generator=g), full)
    torch.testing.assert_close(loss(num_anchors=100, generator=g), full)


def test_random_anchors_need_a_generator():
    x = draw(18, 1, 3, 1, 2)
    with pytest.raises(ValueError, match="generator"):
        minibatch_pixel(x, x, torch.ones(1, 1, 2, dtype=torch.bool), num_anchors=1)


def test_projector_changes_channels_only():
    projector = Projector(3, 5)
    assert projector(torch.zeros(2, 3, 4, 7)).shape == (2, 5, 4, 7)
    assert [type(layer).__name__ for layer in projector] == [
        "Conv2d", "BatchNorm2d", "ReLU", "Conv2d",
    ]  # fmt: skip
