"""The shared products of a pair's two directions: the same loss as image against image."""

from typing import NoReturn

import pytest
import torch
from torch import Tensor

from pipeline.losses import pairs
from pipeline.losses.embedding import embed
from pipeline.losses.pairs import batch_similarity_kl
from pipeline.losses.products import FEWEST_COLUMNS, LARGEST_LOGIT
from pipeline.losses.similarity import similarity_kl

TAU = 0.1
AREA = FEWEST_COLUMNS + 6


def draw(seed: int, num_images: int = 3, channels: int = 8) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return embed(torch.randn(num_images, AREA, channels, generator=g, dtype=torch.float64), dim=2)


def masks() -> dict[str, Tensor]:
    everything = torch.ones(3, AREA, dtype=torch.bool)
    some, one_image_out = everything.clone(), everything.clone()
    some[0, 1:5], some[2, -2:] = False, False
    one_image_out[1] = False
    return {"all": everything, "some": some, "one image out": one_image_out}


def naive(student: Tensor, teacher: Tensor, inside: Tensor) -> tuple[Tensor, int]:
    """The mean over rows and images, by loops and plain autograd."""
    total, count = student.new_zeros(()), 0
    for i, rows in enumerate(inside):
        for j, columns in enumerate(inside):
            if not columns.any():
                continue
            s, t = ((x[i][rows] @ x[j][columns].T / TAU).log_softmax(1) for x in (student, teacher))
            total, count = total + (t.exp() * (t - s)).sum(), count + int(rows.sum())
    return total / count, count


def refuse(*args: object, **kwargs: object) -> NoReturn:
    raise AssertionError("the pairs were to share their products")


@pytest.mark.parametrize("name", masks())
def test_it_equals_loops_over_pairs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "similarity_kl", refuse)
    student, teacher, inside = draw(0).requires_grad_(), draw(1, channels=5), masks()[name]
    mean = batch_similarity_kl(student, teacher, inside, temperature=TAU)
    value, count = naive(student, teacher, inside)
    assert mean.count == count
    torch.testing.assert_close(mean.value, value, rtol=1e-10, atol=1e-10)
    found, expected = (torch.autograd.grad(x, student)[0] for x in (mean.value, value))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_float32_is_at_most_twice_as_far_from_the_truth_as_plain_autograd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pairs, "similarity_kl", refuse)
    student, teacher, inside = draw(2), draw(3), masks()["some"]
    exact, _ = naive(student, teacher, inside)
    narrow = student.float().requires_grad_()
    (truth,) = torch.autograd.grad(*_with_graph(student, teacher, inside))
    plain, _ = naive(narrow, teacher.float(), inside)
    fused = batch_similarity_kl(narrow, teacher.float(), inside, temperature=TAU).value
    assert abs(fused.item() - exact.item()) <= 1e-6
    errors = [
        (torch.autograd.grad(value, narrow)[0] - truth).abs().max() for value in (fused, plain)
    ]
    assert errors[0] <= 2 * errors[1]


def _with_graph(student: Tensor, teacher: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    return naive(student, teacher, inside)[0], student


def test_equal_networks_differ_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "similarity_kl", refuse)
    student = draw(4).float().requires_grad_()
    mean = batch_similarity_kl(student, student, masks()["some"], temperature=TAU)
    mean.value.backward()
    assert abs(mean.value.item()) <= 1e-6
    assert student.grad is not None
    assert student.grad.abs().max() <= 1e-8


@pytest.mark.parametrize("case", ["large logits", "little memory", "few pixels"])
def test_elsewhere_every_image_is_a_set_of_columns(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def watched(*args: object, **kwargs: object) -> object:
        called.append(case)
        return similarity_kl(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(pairs, "similarity_kl", watched)
    student, teacher, inside, block_bytes = draw(5), draw(6), masks()["some"], 2**20
    if case == "large logits":
        student = student * (2 * LARGEST_LOGIT * TAU)
    if case == "little memory":
        block_bytes = 1000
    if case == "few pixels":
        student, teacher, inside = student[:, :9], teacher[:, :9], inside[:, :9]
    student.requires_grad_()
    mean = batch_similarity_kl(student, teacher, inside, temperature=TAU, block_bytes=block_bytes)
    assert called == [case]
    value, _ = naive(student, teacher, inside)
    torch.testing.assert_close(mean.value, value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_the_memory_term_without_its_greatest_logit_is_exact_too(masked: bool) -> None:
    """Unit embeddings at the paper's temperature need no greatest logit subtracted."""
    student, teacher, contrast = draw(7)[0].requires_grad_(), draw(8)[0], draw(9)[0]
    columns = torch.ones(AREA, dtype=torch.bool)
    if masked:
        columns[3:20] = False
    mean = similarity_kl(student, teacher, contrast, contrast, temperature=TAU, columns=columns)
    s, t = ((x @ contrast[columns].T / TAU).log_softmax(1) for x in (student, teacher))
    value = (t.exp() * (t - s)).sum() / len(student)
    torch.testing.assert_close(mean.value, value, rtol=1e-10, atol=1e-10)
    found, expected = (torch.autograd.grad(x, student)[0] for x in (mean.value, value))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
