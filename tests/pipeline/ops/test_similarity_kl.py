"""Similarity KL: laws, and equality with the dense formula in float64."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ops import similarity_kl as similarity
from pipeline.ops import tiling
from pipeline.ops.embedding import embed
from pipeline.ops.similarity_kl import similarity_kl

TINY_BLOCKS = 3 * 8 * 16  # a few rows of a few columns: several blocks even at tiny shapes
_SAME_FOR_ALL = HealthCheck.function_scoped_fixture


def dense(student, teacher, student_contrast, teacher_contrast, temperature, rows, columns):
    """The formula, with whole matrices: total over rows and sets [J, m, D]."""
    total = student.sum() * 0
    for j in range(len(student_contrast)):
        if not columns[j].any() or not rows.any():
            continue
        s = student[rows] @ student_contrast[j][columns[j]].T / temperature
        t = teacher[rows] @ teacher_contrast[j][columns[j]].T / temperature
        s, t = s.log_softmax(1), t.log_softmax(1)
        total = total + (t.exp() * (t - s)).sum()
    return total


def problem(seed, n, m, sets=1, channels=5, scale=1.0, keep=0.7, dtype=torch.float64):
    """Student, teacher, their contrast sets, row and column masks."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    tensors = (
        draw(n, channels) * scale,
        draw(n, channels + 2) * scale,
        draw(sets, m, channels),
        draw(sets, m, channels + 2),
    )
    rows = torch.rand(n, generator=g) < keep
    columns = torch.rand(sets, m, generator=g) < keep
    return [x.to(dtype) for x in tensors], rows, columns


def value_and_grads(loss, student, contrast):
    student, contrast = (x.detach().clone().requires_grad_() for x in (student, contrast))
    total = loss(student, contrast)
    grads = torch.autograd.grad(total, (student, contrast), materialize_grads=True)
    return total.detach(), *grads


@pytest.fixture
def few_columns(monkeypatch):
    """Take the way of many columns at few, in tiles of two rows."""
    monkeypatch.setattr(tiling, "FEWEST_COLUMNS", 1)
    monkeypatch.setattr(similarity, "tile_rows", lambda *_: 2)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    sets=st.integers(1, 3),
    keep=st.sampled_from([0.0, 0.5, 1.0]),
    scale=st.sampled_from([1e-8, 0.1, 1.0, 1e3]),
    block_bytes=st.sampled_from([1, TINY_BLOCKS, 2**20]),
)
@settings(max_examples=100, suppress_health_check=[_SAME_FOR_ALL])
def test_equals_dense_float64(few_columns, seed, n, m, sets, keep, scale, block_bytes):
    (s, t, cs, ct), rows, columns = problem(seed, n, m, sets, keep=keep, scale=scale)
    mean = similarity_kl(
        s, t, cs, ct, temperature=0.1, rows=rows, columns=columns, block_bytes=block_bytes
    )
    assert mean.count == columns.any(1).sum() * rows.sum()

    def fused(s, cs):
        return similarity_kl(
            s, t, cs, ct, temperature=0.1, rows=rows, columns=columns, block_bytes=block_bytes
        ).total

    found = value_and_grads(fused, s, cs)
    expected = value_and_grads(lambda s, cs: dense(s, t, cs, ct, 0.1, rows, columns), s, cs)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sets", [1, 3])
def test_gradcheck(sets):
    (s, t, cs, ct), rows, columns = problem(1, 5, 4, sets, keep=1.0)
    rows[2], columns[:, 1] = False, False
    torch.autograd.gradcheck(
        lambda s, cs: (
            similarity_kl(
                s, t, cs, ct, temperature=0.3, rows=rows, columns=columns, block_bytes=TINY_BLOCKS
            ).value
        ),
        (s.requires_grad_(), cs.requires_grad_()),
    )


def test_gradcheck_where_rows_are_also_the_contrast():
    (s, t, _, _), _, _ = problem(2, 6, 1)

    def loss(s):
        return similarity_kl(
            s, t, s.view(2, 3, -1), t.view(2, 3, -1), temperature=0.3, block_bytes=TINY_BLOCKS
        ).value

    torch.autograd.gradcheck(loss, (s.requires_grad_(),))


def test_hand_worked():
    # One row, two columns: similarities s = (ln 3, 0), t = (0, 0) at temperature 1, so
    # softmax(s) = (3/4, 1/4), softmax(t) = (1/2, 1/2), KL = 1/2 ln(2/3) + 1/2 ln 2 = ln(4/3) / 2.
    student = torch.tensor([[math.log(3.0)]], dtype=torch.float64, requires_grad=True)
    teacher = torch.zeros(1, 1, dtype=torch.float64)
    contrast = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    mean = similarity_kl(student, teacher, contrast, contrast, temperature=1.0)
    mean.total.backward()
    assert mean.count == 1
    assert mean.value.item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-15)
    assert student.grad.item() == pytest.approx(0.75 - 0.5, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_zero_at_equality_and_positive_elsewhere(dtype, scale, few_columns):
    (s, _, cs, _), rows, columns = problem(3, 20, 17, 2, scale=scale, dtype=dtype)
    kwargs = {"temperature": 0.1, "rows": rows, "columns": columns}
    equal = similarity_kl(s.requires_grad_(), s.detach(), cs, cs, **kwargs)
    equal.total.backward()
    assert equal.total == 0
    assert (s.grad == 0).all()
    for seed in range(20):
        (s, t, cs, ct), _, _ = problem(seed, 20, 17, 2, scale=1e-3, dtype=dtype)
        value = similarity_kl(s, t, cs, ct, **kwargs).value
        assert value > -1e-7


@pytest.mark.parametrize("name", ["rows", "columns"])
def test_masked_rows_and_columns_are_inert(name, few_columns):
    """Whatever masked embeddings hold, NaN included, and whether they are there at all."""
    (s, t, cs, ct), rows, columns = problem(4, 8, 7, 2)
    kwargs = {"temperature": 0.1, "rows": rows, "columns": columns}
    expected = similarity_kl(s, t, cs, ct, **kwargs)
    if name == "rows":
        s[~rows], t[~rows] = math.nan, math.inf
    else:
        cs[~columns], ct[~columns] = math.nan, math.inf
    s.requires_grad_(), cs.requires_grad_()
    found = similarity_kl(s, t, cs, ct, **kwargs)
    found.total.backward()
    torch.testing.assert_close(found.total, expected.total, rtol=1e-14, atol=0)
    assert found.count == expected.count
    assert s.grad.isfinite().all()
    assert cs.grad.isfinite().all()
    assert (s.grad[~rows] == 0).all()
    assert (cs.grad[~columns] == 0).all()


def test_masks_act_the_same_where_embeddings_are_not_left_out(monkeypatch):
    """The branch of devices that must not sync, on CPU."""
    (s, t, cs, ct), rows, columns = problem(5, 8, 7)

    def fused(s, cs):
        return similarity_kl(s, t, cs, ct, temperature=0.1, rows=rows, columns=columns).total

    left_out = value_and_grads(fused, s, cs)
    monkeypatch.setattr("pipeline.ops.similarity_kl._can_leave_out", lambda mask: False)
    s[~rows], ct[~columns] = math.nan, math.nan
    for x, y in zip(value_and_grads(fused, s, cs), left_out, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_a_set_without_columns_is_inert(few_columns):
    (s, t, cs, ct), rows, columns = problem(6, 4, 3, 3, keep=1.0)
    columns[1] = False
    found = similarity_kl(s, t, cs, ct, temperature=0.1, rows=rows, columns=columns)
    expected = similarity_kl(s, t, cs[[0, 2]], ct[[0, 2]], temperature=0.1)
    assert found.count == expected.count == 2 * 4
    torch.testing.assert_close(found.total, expected.total, rtol=1e-14, atol=0)


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("name", ["rows", "columns"])
def test_everything_masked_is_zero(name, sets, few_columns):
    (s, t, cs, ct), rows, columns = problem(6, 4, 3, sets, keep=1.0)
    masks = {"rows": rows, "columns": columns}
    masks[name] = torch.zeros_like(masks[name])
    mean = similarity_kl(s.requires_grad_(), t, cs.requires_grad_(), ct, temperature=0.1, **masks)
    mean.value.backward()
    assert mean.total == 0
    assert mean.count == 0
    assert (s.grad == 0).all()
    assert (cs.grad == 0).all()


@pytest.mark.parametrize(("n", "m", "scale"), [(1, 1, 1), (1, 300, 1), (300, 1, 1), (64, 300, 1)])
@pytest.mark.parametrize("embedded", [True, False])
def test_float32_error_is_that_of_the_dense_formula(n, m, scale, embedded):
    errors, dense_errors = torch.zeros(3), torch.zeros(3)
    for seed in range(8):
        (s, t, cs, ct), rows, columns = problem(seed, n, m, channels=32, scale=scale, keep=1.0)
        if embedded:
            s, t, cs, ct = (embed(x, dim=-1) for x in (s, t, cs, ct))
        masks = (0.1 if embedded else 10.0, rows, columns)
        exact = value_and_grads(lambda s, cs: dense(s, t, cs, ct, *masks) / n, s, cs)  # noqa: B023
        s, t, cs, ct = (x.float() for x in (s, t, cs, ct))
        naive = value_and_grads(lambda s, cs: dense(s, t, cs, ct, *masks) / n, s, cs)  # noqa: B023
        fused = value_and_grads(
            lambda s, cs: similarity_kl(s, t, cs, ct, temperature=masks[0]).value,  # noqa: B023
            s,
            cs,
        )
        assert abs(fused[0] - exact[0]) <= 1e-6
        for i in range(3):
            errors[i] = max(errors[i], (fused[i] - exact[i]).abs().max())
            dense_errors[i] = max(dense_errors[i], (naive[i] - exact[i]).abs().max())
    assert (errors <= 2 * dense_errors + 1e-9).all(), (errors, dense_errors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_softmax_and_gradients_in_float32(dtype):
    (s, t, cs, ct), _rows, _ = problem(7, 40, 30, channels=32, dtype=torch.float32)
    s, t, cs, ct = (embed(x, dim=-1) for x in (s, t, cs, ct))
    s, cs = s.to(dtype).requires_grad_(), cs.to(dtype).requires_grad_()
    exact = similarity_kl(s.double(), t.double(), cs.double(), ct.double(), temperature=0.1).value
    with torch.autocast("cpu", torch.bfloat16):
        mean = similarity_kl(s, t, cs, ct, temperature=0.1)
    mean.value.backward()
    assert mean.total.dtype == torch.float32
    assert s.grad.dtype == dtype
    assert cs.grad.dtype == dtype
    assert mean.value.item() == pytest.approx(exact.item(), rel=0.02)
    assert mean.value.item() != pytest.approx(exact.item(), rel=1e-7)  # products were bfloat16
    expected = torch.autograd.grad(exact, s)[0]
    error = (s.grad.double() - expected.double()).norm() / expected.double().norm()
    assert error < 0.02


def test_float64_is_not_narrowed_by_autocast():
    (s, t, cs, ct), _rows, _columns = problem(8, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        mean = similarity_kl(s, t, cs, ct, temperature=0.1)
    assert mean.total == similarity_kl(s, t, cs, ct, temperature=0.1).total


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # raised inside dynamo
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_inside_a_compiled_function(backend):
    (s, t, cs, ct), rows, columns = problem(9, 6, 5, dtype=torch.float32)

    def loss(s, cs):
        mean = similarity_kl(2 * s, t, cs, ct, temperature=0.1, rows=rows, columns=columns)
        return mean.value * 3

    found = value_and_grads(torch.compile(loss, backend=backend), s, cs)
    for x, y in zip(found, value_and_grads(loss, s, cs), strict=True):
        torch.testing.assert_close(x, y)


def test_no_gradient_work_without_need():
    (s, t, cs, ct), _, _ = problem(10, 6, 5)
    with torch.no_grad():
        value = similarity_kl(s.requires_grad_(), t, cs, ct, temperature=0.1).value
    assert not value.requires_grad
    value = similarity_kl(s, t.requires_grad_(), cs, ct, temperature=0.1).value
    value.backward()
    assert t.grad is None


def test_backward_twice():
    (s, t, cs, ct), _, _ = problem(11, 6, 5)
    total = similarity_kl(s.requires_grad_(), t, cs, ct, temperature=0.1).total
    total.backward(retain_graph=True)
    once = s.grad.clone()
    (2 * total).backward()
    torch.testing.assert_close(s.grad, 3 * once)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"teacher": torch.zeros(3, 7)}, "teacher rows"),
        ({"teacher_contrast": torch.zeros(1, 4, 7)}, "teacher contrast"),
        ({"student": torch.zeros(6, 3)}, "channels"),
        ({"rows": torch.ones(5, dtype=torch.bool)}, "rows and their mask"),
        ({"columns": torch.ones(5, dtype=torch.bool)}, "columns and their mask"),
    ],
)
def test_refuses_what_does_not_match(change, message):
    (s, t, cs, ct), _, _ = problem(12, 6, 5)
    arguments = {
        "student": s, "teacher": t, "student_contrast": cs, "teacher_contrast": ct,
        "temperature": 0.1,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        similarity_kl(**(arguments | change))
