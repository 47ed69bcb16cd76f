from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.order import epoch_order

SIZES = st.integers(0, 200)
UNITS = st.integers(1, 40)


@given(SIZES, UNITS, st.integers(0, 2**40), st.integers(0, 1000), st.integers(1, 10))
def test_an_epoch_is_a_permutation_and_a_pure_function(
    num_records: int, unit_size: int, seed: int, epoch: int, window: int
) -> None:
    order = epoch_order(num_records, unit_size, seed, epoch, window)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(num_records))
    np.testing.assert_array_equal(order, epoch_order(num_records, unit_size, seed, epoch, window))


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 5))
def test_a_window_opens_only_its_own_units(num_units: int, unit_size: int, window: int) -> None:
    order = epoch_order(num_units * unit_size, unit_size, 3, 1, window)
    windows = np.split(order, range(window * unit_size, len(order), window * unit_size))
    opened = [set((records // unit_size).tolist()) for records in windows]
    assert all(len(units) <= window for units in opened)
    assert sum(len(units) for units in opened) == num_units


def company(order: np.ndarray, unit_size: int, batch_size: int) -> tuple[float, float]:
    """Of the batches of an order: share of their pairs that are of one unit; files touched."""
    batches = (order // unit_size)[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    same = batches[:, :, None] == batches[:, None, :]
    pairs = (same.sum((1, 2)) - batch_size) / (batch_size * (batch_size - 1))
    return pairs.mean(), np.mean([len(np.unique(batch)) for batch in batches])


@pytest.mark.parametrize(("unit_size", "batch_size"), [(32, 16), (32, 8), (8, 16)])
def test_batches_are_as_mixed_as_the_docstring_says(unit_size: int, batch_size: int) -> None:
    num_records, window = 64 * unit_size, 8
    rng = np.random.default_rng(0)
    epochs = [epoch_order(num_records, unit_size, 0, epoch, window) for epoch in range(20)]
    pairs, files = np.mean([company(order, unit_size, batch_size) for order in epochs], axis=0)
    uniform = [company(rng.permutation(num_records), unit_size, batch_size)[0] for _ in range(20)]
    size = window * unit_size
    assert pairs == pytest.approx((unit_size - 1) / (size - 1), rel=0.02)
    assert pairs / np.mean(uniform) == pytest.approx((num_records - 1) / (size - 1), rel=0.1)
    none_of_a_unit = comb(size - unit_size, batch_size) / comb(size, batch_size)
    assert files == pytest.approx(window * (1 - none_of_a_unit), rel=0.01)


def test_the_figures_of_the_docstring() -> None:
    order = np.concatenate([epoch_order(2975, 32, 0, epoch)[:2816] for epoch in range(20)])
    pairs, files = company(order, 32, 16)
    assert pairs == pytest.approx(0.12, abs=0.005)
    assert files == pytest.approx(7.1, abs=0.1)
    rng = np.random.default_rng(0)
    uniform = np.concatenate([rng.permutation(2975)[:2816] for _ in range(20)])
    assert company(uniform, 32, 16) == pytest.approx((0.01, 15), rel=0.1)


def test_no_two_epochs_or_seeds_share_an_order() -> None:
    orders = {epoch_order(64, 8, seed, epoch).tobytes() for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
