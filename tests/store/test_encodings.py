import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store.encodings.base import Encoding
from store.encodings.registry import ENCODINGS, find_encoding
from store.errors import StoreMismatchError

UNSIGNED = ("uint8_per_pixel", "uint8_per_channel", "uint4_per_channel")


def maps(limit: float, name: str) -> st.SearchStrategy[np.ndarray]:
    low = 0.0 if name in UNSIGNED else -limit
    fewest = getattr(ENCODINGS[name], "k", 0) + 1
    shapes = st.tuples(st.integers(1, 3), st.integers(fewest, 12), *[st.integers(1, 4)] * 2)
    return arrays(np.float32, shapes, elements=st.floats(low, limit, width=32))


def measured_error(encoding: Encoding, x: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """The error of every value, or for "kl" the divergence of every pixel, in float64."""
    x, decoded = x.astype(np.float64), decoded.astype(np.float64)
    if encoding.measure == "absolute":
        return np.abs(decoded - x)
    log_p, log_q = log_softmax(x), log_softmax(decoded)
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=1, keepdims=True)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("limit", [2.0**-130, 2.0**-8, 16.0, 60000.0])
@settings(max_examples=60)
@given(drawn=st.data())
def test_error_stays_within_its_bound(name: str, limit: float, drawn: st.DataObject) -> None:
    x = drawn.draw(maps(limit, name))
    encoding = ENCODINGS[name].bind(x.shape[1])
    decoded = encoding.decode(encoding.encode(x))
    assert decoded.dtype == np.float32
    assert decoded.shape == x.shape
    assert (measured_error(encoding, x, decoded) <= encoding.max_error(x)).all()


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_bound_is_no_looser_than_needed(name: str) -> None:
    """A bound of infinity would also hold; on even noise the worst error comes close to ours."""
    x = np.random.default_rng(0).random((2, 64, 16, 16), np.float32)
    encoding = ENCODINGS[name].bind(64)
    error = measured_error(encoding, x, encoding.decode(encoding.encode(x)))
    if name == "float32":
        assert not error.any()
    else:
        assert (error / encoding.max_error(x)).max() > 0.9


@pytest.mark.parametrize("name", ENCODINGS)
def test_arrays_are_the_ones_announced(name: str) -> None:
    encoding = ENCODINGS[name].bind(9)
    encoded = encoding.encode(np.random.default_rng(0).random((3, 9, 2, 4), np.float32))
    announced = encoding.array_specs(9, 2, 4)
    assert {suffix: ((3, *shape), dtype) for suffix, (shape, dtype) in announced.items()} == {
        suffix: (values.shape, values.dtype.name) for suffix, values in encoded.items()
    }


@pytest.mark.parametrize("name", ENCODINGS)
def test_torch_decodes_what_numpy_decodes(name: str) -> None:
    torch = pytest.importorskip("torch")
    encoding = ENCODINGS[name].bind(9)
    encoded = encoding.encode(np.random.default_rng(0).random((3, 9, 2, 4), np.float32))
    tensors = {suffix: torch.from_numpy(values) for suffix, values in encoded.items()}
    decoded = encoding.decode(tensors)
    assert decoded.dtype == torch.float32
    np.testing.assert_array_equal(decoded.numpy(), encoding.decode(encoded))


@pytest.mark.parametrize("name", UNSIGNED)
def test_negative_values_are_refused_with_the_way_out(name: str) -> None:
    x = np.array([1.0, -0.5], np.float32).reshape(1, 2, 1, 1)
    signed = "int8_per_pixel" if name == "uint8_per_pixel" else "int8_per_channel"
    with pytest.raises(StoreMismatchError, match=rf"the first -0\.5\n.*encoding {signed}"):
        ENCODINGS[name].encode(x)


@pytest.mark.parametrize("name", sorted(set(ENCODINGS) - {"float32"}))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    x = np.array([1.0, value] * 8, np.float32).reshape(1, 16, 1, 1)
    with pytest.raises(StoreMismatchError, match="do not fit"):
        ENCODINGS[name].bind(16).encode(x)


def test_half_precision_refuses_what_it_would_turn_into_infinity() -> None:
    with pytest.raises(StoreMismatchError, match="float32"):
        ENCODINGS["float16"].encode(np.full((1, 1, 1, 1), 65520.0, np.float32))


def test_an_unknown_encoding_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StoreMismatchError, match="uint8_per_pixel"):
        find_encoding("uint7")


@given(arrays(np.float32, (2, 9, 1, 3), elements=st.floats(-20, 20, width=32)))
def test_top_k_keeps_every_stored_probability_and_the_mass_of_the_rest(x: np.ndarray) -> None:
    encoding = ENCODINGS["top_3"].bind(9)
    encoded = encoding.encode(x)
    p, q = np.exp(log_softmax(x)), np.exp(log_softmax(encoding.decode(encoded)))
    stored = encoded["_class"].astype(np.int64)
    kept_p, kept_q = (np.take_along_axis(a, stored, axis=1) for a in (p, q))
    np.testing.assert_allclose(kept_q, kept_p, rtol=0.05, atol=1e-6)
    np.testing.assert_allclose(
        q.sum(axis=1) - kept_q.sum(axis=1), 1 - kept_p.sum(axis=1), atol=0.02
    )
    assert all(len(set(stored[n, :, 0, w])) == 3 for n in range(2) for w in range(3))


def test_top_k_needs_more_classes_than_it_keeps() -> None:
    with pytest.raises(StoreMismatchError, match="more than 3"):
        ENCODINGS["top_3"].bind(3)
