"""What every distillation term obeys, whatever its formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.at import at
from pipeline.losses.cirkd import memory, minibatch_pixel
from pipeline.losses.cirkdv2 import channel_memory, channel_minibatch, channel_mse
from pipeline.losses.cwd import cwd
from pipeline.losses.dsd import csd, psd
from pipeline.losses.fitnet import fitnet
from pipeline.losses.ifvd import ifvd
from pipeline.losses.kd import kd
from pipeline.losses.skd import pairwise
from pipeline.ops.attention_map import power
from pipeline.ops.contrast import Contrast
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
    def pooled(student, teacher, valid):
        (student, cells), (teacher, _) = (mean_pool(x, valid, 2) for x in (student, teacher))
        if term is channel_memory:
            bank = contrast(cells[0].numel(), student.dtype)
            return term(student, teacher, cells, bank, 0.5)
        if term is channel_minibatch:
            return term(student, teacher, cells, 0.5)
        return term(student, teacher, cells)

    return pooled


def stripes(valid):
    labels = (torch.arange(valid[0].numel()) % 3).view(valid.shape[1:]).to(torch.uint8)
    return labels.where(valid, VOID).to(torch.uint8)


def powers(x):
    return [power(x), power(x[:, :2]), power(x[:, 1:3])]


TERMS = {
    "kd": lambda s, t, valid: kd(s, t, valid, 2.0),
    "minibatch_pixel": lambda s, t, valid: minibatch_pixel(s, t, valid, 0.5, block_bytes=999),
    "memory": lambda s, t, valid: memory(s, t, valid, bank_of(s), 0.5, block_bytes=999),
    "skd_pairwise": pairwise,
    "ifvd": lambda s, t, valid: ifvd(s, t, stripes(valid), 3),
    "cwd": cwd,
    "at": at,
    "fitnet": fitnet,
    "csd": csd,
    "psd": lambda s, t, valid: psd(powers(s), powers(t), valid),
    "channel_minibatch": of_channels(channel_minibatch),
    "channel_memory": of_channels(channel_memory),
    "channel_mse": of_channels(channel_mse),
}
LOGITS_TERMS = ["kd", "cwd", "csd"]
every_term = pytest.mark.parametrize("name", TERMS)


def problem(height=4, width=6, padded=True):
    """Student, teacher [2, C, height, width], and padding on the right and at the bottom."""
    student, teacher = draw(0, 2, C, height, width), draw(1, 2, C, height, width)
    valid = torch.ones(2, height, width, dtype=torch.bool)
    if padded:
        valid[0, :, width - 2 :], valid[1, height - 2 :] = False, False
    return student, teacher, valid


@every_term
def test_zero_at_equality_with_zero_gradient(name):
    student, _, valid = problem()
    mean = TERMS[name](student.requires_grad_(), student.detach().clone(), valid)
    mean.value.backward()
    assert mean.count > 0
    assert mean.value.abs() < 1e-13
    assert student.grad.abs().max() < 1e-13


@every_term
def test_positive_elsewhere_and_smaller_when_nearer(name):
    student, teacher, valid = problem()
    far = TERMS[name](student, teacher, valid).value
    near = TERMS[name](teacher + 0.01 * (student - teacher), teacher, valid).value
    assert 0 < near < far


@every_term
def test_gradcheck(name):
    student, teacher, valid = problem()
    torch.autograd.gradcheck(
        lambda s: TERMS[name](s, teacher, valid).value, (student.requires_grad_(),)
    )


@every_term
def test_teacher_gets_no_gradient(name):
    student, teacher, valid = problem()
    TERMS[name](student.requires_grad_(), teacher.requires_grad_(), valid).value.backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


@every_term
def test_padding_is_inert(name):
    student, teacher, valid = problem()
    expected = TERMS[name](student, teacher, valid)
    for x, value in ((student, 50.0), (teacher, -30.0)):
        x.masked_fill_(~valid.unsqueeze(1), value)
    found = TERMS[name](student.requires_grad_(), teacher, valid)
    found.value.backward()
    assert found.count == expected.count
    torch.testing.assert_close(found.total.detach(), expected.total, rtol=1e-12, atol=1e-12)
    assert (student.grad.masked_select(~valid.unsqueeze(1)) == 0).all()


@every_term
def test_an_image_of_padding_alone_is_inert(name):
    student, teacher, valid = problem()
    valid[1] = False
    found = TERMS[name](student, teacher, valid)
    expected = TERMS[name](student[:1], teacher[:1], valid[:1])
    torch.testing.assert_close(found.value, expected.value)


@pytest.mark.parametrize("name", sorted(TERMS.keys() - {"channel_memory"}))  # its queue has a size
def test_padding_is_the_same_as_a_smaller_image(name):
    student, teacher, valid = problem(padded=False)
    expected = TERMS[name](student[..., :4], teacher[..., :4], valid[..., :4])
    valid[..., 4:] = False
    if name == "ifvd":
        labels = stripes(valid)
        found = ifvd(student, teacher, labels, 3)
        expected = ifvd(student[..., :4], teacher[..., :4], labels[..., :4], 3)
    else:
        found = TERMS[name](student, teacher, valid)
    assert found.count == expected.count
    torch.testing.assert_close(found.total, expected.total)


@every_term
def test_nothing_inside_is_zero(name):
    student, teacher, valid = problem()
    mean = TERMS[name](student.requires_grad_(), teacher, torch.zeros_like(valid))
    mean.value.backward()
    assert mean.value == 0
    assert mean.count == 0
    assert (student.grad == 0).all()


@every_term
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 5), (7, 2)])
def test_any_size(name, size):
    student, teacher, valid = problem(*size, padded=False)
    mean = TERMS[name](student.requires_grad_(), teacher, valid)
    mean.value.backward()
    assert mean.value.isfinite()
    assert student.grad.isfinite().all()


@every_term
@pytest.mark.parametrize("kind", ["zero", "tiny", "huge", "one zero pixel"])
def test_extreme_values_are_finite(name, kind):
    student, teacher, valid = (x if x.dtype == torch.bool else x.float() for x in problem())
    factor = {"zero": 0, "tiny": 1e-12, "huge": 1e4}.get(kind, 1)
    student, teacher = student * factor, teacher * factor
    if kind == "one zero pixel":
        student[0, :, 0, 0], teacher[1, :, 0, 1] = 0, 0
    mean = TERMS[name](student.requires_grad_(), teacher, valid)
    mean.value.backward()
    assert mean.value.isfinite()
    assert student.grad.isfinite().all()


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_float32(name, dtype):
    student, teacher, valid = problem()
    student, teacher = student.to(dtype), teacher.to(dtype)
    mean = TERMS[name](student, teacher, valid)
    exact = TERMS[name](student.double(), teacher.double(), valid)
    assert mean.total.dtype == torch.float32
    torch.testing.assert_close(mean.value.double(), exact.value, rtol=1e-4, atol=1e-6)


@every_term
def test_autocast_stays_close(name):
    student, teacher, valid = (x if x.dtype == torch.bool else x.float() for x in problem())
    exact = TERMS[name](student, teacher, valid).value
    with torch.autocast("cpu", torch.bfloat16):
        found = TERMS[name](student.requires_grad_(), teacher, valid).value
    found.backward()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=0.03)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", LOGITS_TERMS)
def test_a_constant_added_to_all_logits_changes_nothing(name):
    student, teacher, valid = problem()
    expected = TERMS[name](student, teacher, valid).value
    found = TERMS[name](student + 40, teacher - math.pi, valid).value
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", sorted(TERMS.keys() - {"minibatch_pixel", "channel_minibatch"}))
def test_images_add_up(name):
    """Total and count of a batch are the sums over its images, where no pair is compared."""
    student, teacher, valid = problem()
    both = TERMS[name](student, teacher, valid)
    each = [TERMS[name](student[i : i + 1], teacher[i : i + 1], valid[i : i + 1]) for i in (0, 1)]
    assert both.count == each[0].count + each[1].count
    torch.testing.assert_close(both.total, each[0].total + each[1].total)
