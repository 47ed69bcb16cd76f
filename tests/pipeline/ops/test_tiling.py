"""Products and tiles: when exp is safe, and how many rows a tile has."""

import math

import pytest
import torch

from pipeline.ops.tiling import FEWEST_COLUMNS, LARGEST_LOGIT, exp_is_safe, slices, tile_rows

UNIT = torch.eye(2).repeat(FEWEST_COLUMNS, 1)


@pytest.mark.parametrize(
    ("rows", "contrast", "scale", "safe"),
    [
        (UNIT, UNIT, LARGEST_LOGIT, True),
        (UNIT, UNIT, 1.01 * LARGEST_LOGIT, False),
        (2 * UNIT, UNIT, 0.51 * LARGEST_LOGIT, False),
        (UNIT, 2 * UNIT, 0.51 * LARGEST_LOGIT, False),
        (UNIT[:0], UNIT, 1.0, True),
        (UNIT, UNIT[: FEWEST_COLUMNS - 1], 1.0, False),
        (UNIT * math.nan, UNIT, 1.0, False),
        (UNIT * 1e30, UNIT, 1.0, False),
    ],
)
def test_exp_is_safe_of_logits_that_cannot_be_large(rows, contrast, scale, safe):
    assert exp_is_safe([rows], [contrast], scale) == safe


def test_the_largest_safe_logits_neither_overflow_nor_vanish():
    logits = torch.tensor([-LARGEST_LOGIT, LARGEST_LOGIT])
    assert (10**6 * logits.exp()).isfinite().all()
    assert (logits.exp() / (10**6 * logits.exp().max()) > torch.finfo(torch.float32).tiny).all()


def test_slices_cover_all_rows_in_turn():
    assert [list(range(7)[x]) for x in slices(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(slices(0, 3)) == []


def test_tiles_shrink_with_their_columns_and_have_rows_however_wide():
    like = torch.empty(0)
    rows = [tile_rows(num_columns, like) for num_columns in (64, 4096, 10**9)]
    assert rows[0] > rows[1] >= rows[2] > 0
