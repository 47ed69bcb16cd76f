"""What every distillation term obeys, whatever its formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.at import at
from pipeline.losses.cirkd import memory, minibatch_pixel
from pipeline.losses.cirkdv2 import channel_memory, channel_minibatch, channel_mse
from pipeline.losses.contrast import Contrast
from pipeline.losses.cwd import cwd
from pipeline.losses.dsd import csd, psd
from pipeline.losses.fitnet import fitnet
from pipeline.losses.ifvd import ifvd
from pipeline.losses.kd import kd
from pipeline.losses.skd import pairwise
from pipeline.ops.attention_map import power
from pipeline.ops.pooling import mean_pool

C, VOID = 4, 255


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contrast(dim, dtype):
    embeddings = F.normalize(draw(9, 7, dim), dim=1).to(dtype)
    return Contrast(embeddings, torch.arange(7) != 2, torch.zeros(7, dtype=torch.int64))


def bank_of(x):
    return contrast(x.shape[1], torch.float64 if x.dtype == torch.float64 else torch.float32)


def of_channels(term):
    def pooled(student, teacher, inside):
        (student, cells), (teacher, _) = (mean_pool(x, inside, 2) for x in (student, teacher))
        if term is channel_memory:
            bank = contrast(cells[0].numel(), student.dtype)
            return term(student, teacher, cells, bank, 0.5)
        if term is channel_minibatch:
            return term(student, teacher, cells, 0.5)
        return term(student, teacher, cells)

    return pooled


def stripes(inside):
    labels = (torch.arange(inside[0].numel()) % 3).view(inside.shape[1:]).to(torch.uint8)
    return labels.where(inside, VOID).to(torch.uint8)


def powers(x):
    return [power(x), power(x[:, :2]), power(x[:, 1:3])]


TERMS = {
    "kd": lambda s, t, inside: kd(s, t, inside, 2.0),
    "minibatch_pixel": lambda s, t, inside: minibatch_pixel(s, t, inside, 0.5, block_bytes=999),
    "memory": lambda s, t, inside: memory(s, t, inside, bank_of(s), 0.5, block_bytes=999),
    "skd_pairwise": pairwise,
    "ifvd": lambda s, t, inside: ifvd(s, t, stripes(inside), 3),
    "cwd": cwd,
    "at": at,
    "fitnet": fitnet,
    "csd": csd,
    "psd": lambda s, t, inside: psd(powers(s), powers(t), inside),
    "channel_minibatch": of_channels(channel_minibatch),
    "channel_memory": of_channels(channel_memory),
    "channel_mse": of_channels(channel_mse),
}
LOGITS_TERMS = ["kd", "cwd", "csd"]
every_term = pytest.mark.parametrize("name", TERMS)


def problem(height=4, width=6, padded=True):
    """Student, teacher [2, C, height, width], and padding on the right and at the bottom."""
    student, teacher = draw(0, 2, C, height, width), draw(1, 2, C, height, width)
    inside = torch.ones(2, height, width, dtype=torch.bool)
    if padded:
        inside[0, :, width - 2 :], inside[1, height - 2 :] = False, False
    return student, teacher, inside


@every_term
def test_zero_at_equality_with_zero_gradient(name):
    student, _, inside = problem()
    mean = TERMS[name](student.requires_grad_(), student.detach().clone(), inside)
    mean.value.backward()
    assert mean.count > 0
    assert mean.value.abs() < 1e-13
    assert student.grad.abs().max() < 1e-13


@every_term
def test_positive_elsewhere_and_smaller_when_nearer(name):
    student, teacher, inside = problem()
    far = TERMS[name](student, teacher, inside).value
    near = TERMS[name](teacher + 0.01 * (student - teacher), teacher, inside).value
    assert 0 < near < far


@every_term
def test_gradcheck(name):
    student, teacher, inside = problem()
    torch.autograd.gradcheck(
        lambda s: TERMS[name](s, teacher, inside).value, (student.requires_grad_(),)
    )


@every_term
def test_teacher_gets_no_gradient(name):
    student, teacher, inside = problem()
    TERMS[name](student.requires_grad_(), teacher.requires_grad_(), inside).value.backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


@every_term
def test_padding_is_inert(name):
    student, teacher, inside = problem()
    expected = TERMS[name](student, teacher, inside)
    for x, value in ((student, 50.0), (teacher, -30.0)):
        x.masked_fill_(~inside.unsqueeze(1), value)
    found = TERMS[name](student.requires_grad_(), teacher, inside)
    found.value.backward()
    assert found.count == expected.count
    torch.testing.assert_close(found.total.detach(), expected.total, rtol=1e-12, atol=1e-12)
    assert (student.grad.masked_select(~inside.unsqueeze(1)) == 0).all()


@every_term
def test_an_image_of_padding_alone_is_inert(name):
    student, teacher, inside = problem()
    inside[1] = False
    found = TERMS[name](student, teacher, inside)
    expected = TERMS[name](student[:1], teacher[:1], inside[:1])
    torch.testing.assert_close(found.value, expected.value)


@pytest.mark.parametrize("name", sorted(TERMS.keys() - {"channel_memory"}))  # its queue has a size
def test_padding_is_the_same_as_a_smaller_image(name):
    student, teacher, inside = problem(padded=False)
    expected = TERMS[name](student[..., :4], teacher[..., :4], inside[..., :4])
    inside[..., 4:] = False
    if name == "ifvd":
        labels = stripes(inside)
        found = ifvd(student, teacher, labels, 3)
        expected = ifvd(student[..., :4], teacher[..., :4], labels[..., :4], 3)
    else:
        found = TERMS[name](student, teacher, inside)
    assert found.count == expected.count
    torch.testing.assert_close(found.total, expected.total)


@every_term
def test_nothing_inside_is_zero(name):
    student, teacher, inside = problem()
    mean = TERMS[name](student.requires_grad_(), teacher, torch.zeros_like(inside))
    mean.value.backward()
    assert mean.value == 0
    assert mean.count == 0
    assert (student.grad == 0).all()


@every_term
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 5), (7, 2)])
def test_any_size(name, size):
    student, teacher, inside = problem(*size, padded=False)
    mean = TERMS[name](student.requires_grad_(), teacher, inside)
    mean.value.backward()
    assert mean.value.isfinite()
    assert student.grad.isfinite().all()


@every_term
@pytest.mark.parametrize("kind", ["zero", "tiny", "huge", "one zero pixel"])
def test_extreme_values_are_finite(name, kind):
    student, teacher, inside = (x if x.dtype == torch.bool else x.float() for x in problem())
    factor = {"zero": 0, "tiny": 1e-12, "huge": 1e4}.get(kind, 1)
    student, teacher = student * factor, teacher * factor
    if kind == "one zero pixel":
        student[0, :, 0, 0], teacher[1, :, 0, 1] = 0, 0
    mean = TERMS[name](student.requires_grad_(), teacher, inside)
    mean.value.backward()
    assert mean.value.isfinite()
    assert student.grad.isfinite().all()


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_float32(name, dtype):
    student, teacher, inside = problem()
    student, teacher = student.to(dtype), teacher.to(dtype)
    mean = TERMS[name](student, teacher, inside)
    exact = TERMS[name](student.double(), teacher.double(), inside)
    assert mean.total.dtype == torch.float32
    torch.testing.assert_close(mean.value.double(), exact.value, rtol=1e-4, atol=1e-6)


@every_term
def test_autocast_stays_close(name):
    student, teacher, inside = (x if x.dtype == torch.bool else x.float() for x in problem())
    exact = TERMS[name](student, teacher, inside).value
    with torch.autocast("cpu", torch.bfloat16):
        found = TERMS[name](student.requires_grad_(), teacher, inside).value
    found.backward()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=0.03)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", LOGITS_TERMS)
def test_a_constant_added_to_all_logits_changes_nothing(name):
    student, teacher, inside = problem()
    expected = TERMS[name](student, teacher, inside).value
    found = TERMS[name](student + 40, teacher - math.pi, inside).value
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", sorted(TERMS.keys() - {"minibatch_pixel", "channel_minibatch"}))
def test_images_add_up(name):
    """Total and count of a batch are the sums over its images, where no pair is compared."""
    student, teacher, inside = problem()
    both = TERMS[name](student, teacher, inside)
    each = [TERMS[name](student[i : i + 1], teacher[i : i + 1], inside[i : i + 1]) for i in (0, 1)]
    assert both.count == each[0].count + each[1].count
    torch.testing.assert_close(both.total, each[0].total + each[1].total)
