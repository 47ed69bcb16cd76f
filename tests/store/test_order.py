import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.order import epoch_order, rank_share

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


@given(SIZES, st.integers(1, 9))
def test_ranks_cover_an_epoch_exactly_once(num_records: int, world_size: int) -> None:
    order = epoch_order(num_records, 8, 0, 0)
    shares = [rank_share(order, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.arange(num_records))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 5))
def test_a_window_opens_only_its_own_units(num_units: int, unit_size: int, window: int) -> None:
    order = epoch_order(num_units * unit_size, unit_size, 3, 1, window)
    windows = np.split(order, range(window * unit_size, len(order), window * unit_size))
    opened = [set((records // unit_size).tolist()) for records in windows]
    assert all(len(units) <= window for units in opened)
    assert sum(len(units) for units in opened) == num_units


def test_no_two_epochs_or_seeds_share_an_order() -> None:
    orders = {epoch_order(64, 8, seed, epoch).tobytes() for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 2"):
        rank_share(np.arange(4), 2, 2)
