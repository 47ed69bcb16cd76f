"""Pairs of images: the laws of the similarity KL, and equality with `similarity_kl`."""

import math

import pytest
import torch

from pipeline.ops import pairwise_similarity_kl as pairs
from pipeline.ops import tiling
from pipeline.ops.embedding import embed
from pipeline.ops.pairwise_similarity_kl import batch_similarity_kl
from pipeline.ops.similarity_kl import similarity_kl


@pytest.fixture(autouse=True)
def _only_pairs(monkeypatch):
    """Few rows are enough for pairs, in tiles of three; whatever walks rows instead is noticed."""
    monkeypatch.setattr(tiling, "FEWEST_COLUMNS", 1)
    monkeypatch.setattr(pairs, "tile_rows", lambda *_: 3)
    monkeypatch.setattr(pairs, "similarity_kl", lambda *_, **__: pytest.fail("no pairs"))


def problem(seed, num_images=3, num_rows=7, keep=0.7, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (
        embed(torch.randn(num_images, num_rows, channels, generator=g).to(dtype), dim=2)
        for channels in (4, 6)
    )
    return student, teacher, torch.rand(num_images, num_rows, generator=g) < keep


def by_rows(student, teacher, valid, temperature):
    return similarity_kl(
        student.flatten(0, 1), teacher.flatten(0, 1), student, teacher,
        temperature=temperature, rows=valid.flatten(), columns=valid,
    )  # fmt: skip


def dense(student, teacher, temperature):
    log_s, log_t = (
        torch.einsum("iad,jbd->ijab", x, x).div(temperature).log_softmax(3)
        for x in (student, teacher)
    )
    return (log_t.exp() * (log_t - log_s)).sum() / log_s[..., 0].numel()


def value_and_grad(loss, student):
    student = student.detach().clone().requires_grad_()
    value = loss(student)
    return value.detach(), torch.autograd.grad(value, student)[0]


@pytest.mark.parametrize("keep", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("num_images", [1, 2, 4])
def test_equals_rows_against_sets_float64(num_images, keep):
    student, teacher, valid = problem(0, num_images, keep=keep)
    valid[0] &= num_images < 4  # among four, an image of padding alone
    assert batch_similarity_kl(student, teacher, valid, temperature=0.1).count == (
        by_rows(student, teacher, valid, 0.1).count
    )
    found = value_and_grad(
        lambda x: batch_similarity_kl(x, teacher, valid, temperature=0.1).total, student
    )
    expected = value_and_grad(lambda x: by_rows(x, teacher, valid, 0.1).total, student)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_shares_of_ranks_add_up_to_the_whole_batch():
    """Each rank's rows against the rows gathered from all ranks: gradients reach both sides."""
    student, teacher, valid = problem(9, 2, 7)

    def share(x, rank):
        return similarity_kl(
            x[rank], teacher[rank], x, teacher,
            temperature=0.1, rows=valid[rank], columns=valid,
        ).total  # fmt: skip

    grads = [value_and_grad(lambda x, r=rank: share(x, r), student)[1] for rank in (0, 1)]
    assert (grads[0][1][valid[1]] != 0).all()  # the other rank's embeddings, as contrast alone
    whole = value_and_grad(
        lambda x: batch_similarity_kl(x, teacher, valid, temperature=0.1).total, student
    )
    torch.testing.assert_close(grads[0] + grads[1], whole[1], rtol=1e-10, atol=1e-10)


def test_gradcheck():
    student, teacher, valid = problem(1, 2, 4)
    torch.autograd.gradcheck(
        lambda x: batch_similarity_kl(x, teacher, valid, temperature=0.3).value,
        (student.requires_grad_(),),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_at_equality_and_positive_elsewhere(dtype):
    student, teacher, valid = problem(2, dtype=dtype)
    equal = batch_similarity_kl(
        student.requires_grad_(), student.detach(), valid, temperature=0.1
    ).total
    equal.backward()
    assert equal == 0
    assert (student.grad == 0).all()
    near = torch.lerp(student.detach(), teacher[..., :4], 1e-4)
    assert batch_similarity_kl(near, student, valid, temperature=0.1).value > -1e-7


def test_whatever_padding_holds_is_inert():
    student, teacher, valid = problem(3)
    expected = batch_similarity_kl(student, teacher, valid, temperature=0.1)
    student[~valid], teacher[~valid] = math.nan, math.inf
    found = batch_similarity_kl(student.requires_grad_(), teacher, valid, temperature=0.1)
    found.total.backward()
    assert found.total == expected.total
    assert student.grad.isfinite().all()
    assert (student.grad[~valid] == 0).all()


def test_everything_masked_is_zero(monkeypatch):
    monkeypatch.setattr(pairs, "similarity_kl", similarity_kl)  # no pair is left
    student, teacher, valid = problem(4, keep=0.0)
    mean = batch_similarity_kl(student.requires_grad_(), teacher, valid, temperature=0.1)
    mean.value.backward()
    assert mean.total == mean.count == 0
    assert (student.grad == 0).all()


def test_float32_error_is_that_of_the_dense_formula():
    errors, dense_errors = torch.zeros(2), torch.zeros(2)
    for seed in range(6):
        student, teacher, valid = problem(seed, 3, 70, keep=1.0)
        exact = value_and_grad(lambda x: dense(x, teacher, 0.1), student)  # noqa: B023
        student, teacher = student.float(), teacher.float()
        naive = value_and_grad(lambda x: dense(x, teacher, 0.1), student)  # noqa: B023
        found = value_and_grad(
            lambda x: batch_similarity_kl(x, teacher, valid, temperature=0.1).value,  # noqa: B023
            student,
        )
        assert abs(found[0] - exact[0]) <= 1e-6
        for i in range(2):
            errors[i] = max(errors[i], (found[i] - exact[i]).abs().max())
            dense_errors[i] = max(dense_errors[i], (naive[i] - exact[i]).abs().max())
    assert (errors <= 2 * dense_errors + 1e-9).all(), (errors, dense_errors)


def test_autocast_narrows_products_alone():
    student, teacher, valid = problem(5, 2, 40, dtype=torch.float32)
    exact = batch_similarity_kl(student, teacher, valid, temperature=0.1).value
    with torch.autocast("cpu", torch.bfloat16):
        mean = batch_similarity_kl(student.requires_grad_(), teacher, valid, temperature=0.1)
    mean.value.backward()
    assert mean.total.dtype == student.grad.dtype == torch.float32
    assert mean.value.item() == pytest.approx(exact.item(), rel=0.02)
    assert mean.value.item() != pytest.approx(exact.item(), rel=1e-7)


def test_no_gradient_work_without_need_and_none_for_the_teacher():
    student, teacher, valid = problem(6)
    value = batch_similarity_kl(student, teacher.requires_grad_(), valid, temperature=0.1).value
    assert not value.requires_grad
    with torch.no_grad():
        again = batch_similarity_kl(student.requires_grad_(), teacher, valid, temperature=0.1)
    assert again.value == value
    assert not again.value.requires_grad


@pytest.mark.parametrize("change", ["memory", "temperature", "length", "few"])
def test_walks_rows_where_pairs_do_not_serve(change, monkeypatch):
    student, teacher, valid = problem(7)
    scale = 10 if change == "length" else 1
    student = student * scale
    temperature = 0.01 if change == "temperature" else 0.1
    if change == "few":
        monkeypatch.setattr(tiling, "FEWEST_COLUMNS", 8)
    monkeypatch.setattr(pairs, "similarity_kl", similarity_kl)
    monkeypatch.setattr(pairs, "_PairsKL", None)
    block_bytes = 2 * 7 * 7 * 8 - 1 if change == "memory" else 2**20
    found = batch_similarity_kl(
        student, teacher, valid, temperature=temperature, block_bytes=block_bytes
    )
    torch.testing.assert_close(found.value, by_rows(student, teacher, valid, temperature).value)


def test_refuses_what_does_not_match():
    student, teacher, valid = problem(8)
    with pytest.raises(ValueError, match="mask"):
        batch_similarity_kl(student, teacher, valid[:, 1:], temperature=0.1)
    with pytest.raises(ValueError, match="temperature"):
        batch_similarity_kl(student, teacher, valid, temperature=0.0)
    with pytest.raises(ValueError, match="teacher rows"):
        batch_similarity_kl(student, teacher[:, 1:], valid, temperature=0.1)
