"""Windows of stored records: everything a record has moves together, by chance that repeats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.augment import WHOLE, Augment
from pipeline.config.base import STRIDE
from pipeline.loading.augmentation import Window, cut_windows, draw_window

WHOLE_INSIDE = np.ones((6, 9), bool)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, int, int]:
    """A window, and the size of the grid it lies on."""
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    height, width = draw(st.integers(1, rows)), draw(st.integers(1, columns))
    top, left = draw(st.integers(0, rows - height)), draw(st.integers(0, columns - width))
    return Window(top, left, height, width, draw(st.booleans())), rows, columns


def coordinates(rows: int, columns: int) -> np.ndarray:
    """[2, rows, columns]: the number of the row, and of the column."""
    return np.stack(np.mgrid[:rows, :columns]).astype(np.uint8)


@given(windows())
def test_coordinates_stay_together(drawn: tuple[Window, int, int]) -> None:
    """Pixels, cells, values and scales all carry the coordinates of the cell they belong to."""
    window, rows, columns = drawn
    cells = coordinates(rows, columns)
    pixels = coordinates(STRIDE * rows, STRIDE * columns)
    record = {
        "image": pixels,
        "labels": pixels[1] // STRIDE,
        "grid_labels": cells[1],
        "grid_valid": (cells[0] + cells[1]) % 2 == 0,
        "logits": cells,
        "logits_rest": cells[1].astype(np.float32),
        "features": np.concatenate([cells, cells]),
        "features_scale": cells[0].astype(np.float32),
        "auxiliary_attention": cells[1].astype(np.float16),
        # Of a whole record, although its sizes could be taken for a grid's.
        "region_center": coordinates(rows, columns)[0],
    }
    cell_px = {name: STRIDE if name in ("image", "labels") else 1 for name in record}
    del cell_px["region_center"]
    arrays = {name: array[None] for name, array in record.items()}
    (cut,) = [{name: array[0] for name, array in cut_windows(arrays, [window], cell_px).items()}]

    row, column = cut["logits"]
    assert row.shape == (window.height, window.width)
    expected = range(window.left, window.left + window.width)
    assert row[:, 0].tolist() == list(range(window.top, window.top + window.height))
    assert column[0].tolist() == list(reversed(expected) if window.flip else expected)
    for name in ("features", "logits_rest", "features_scale", "auxiliary_attention"):
        assert cut[name].dtype == record[name].dtype
    assert np.array_equal(cut["features"], np.stack([row, column, row, column]))
    assert np.array_equal(cut["features_scale"], row)
    for name in ("grid_labels", "logits_rest", "auxiliary_attention"):
        assert np.array_equal(cut[name], column)
    assert np.array_equal(cut["grid_valid"], (row + column) % 2 == 0)
    assert np.array_equal(cut["region_center"], record["region_center"])
    grown = np.ones((STRIDE, STRIDE), np.uint8)
    assert np.array_equal(cut["labels"], np.kron(column, grown))
    assert np.array_equal(cut["image"][0] // STRIDE, np.kron(row, grown))
    assert np.array_equal(cut["image"][1] // STRIDE, cut["labels"])
    steps = np.diff(cut["image"][1].astype(int), axis=1)
    assert (steps == (-1 if window.flip else 1)).all()
    assert all(array.flags.c_contiguous for array in cut.values())


@given(windows())
def test_mirroring_twice_is_the_identity(drawn: tuple[Window, int, int]) -> None:
    _, rows, columns = drawn
    mirror = Window(0, 0, rows, columns, True)
    for cell_px in (1, STRIDE):
        array = coordinates(cell_px * rows, cell_px * columns)
        assert np.array_equal(mirror.cut(mirror.cut(array, cell_px), cell_px), array)
        assert not np.array_equal(mirror.cut(array, cell_px), array) or cell_px * columns == 1


def test_a_window_is_a_pure_function_of_seed_step_and_record() -> None:
    augment = Augment(flip_probability=0.5, crop_height=24, crop_width=32)
    asked = [(seed, step, record) for seed in (0, 1) for step in range(10) for record in range(10)]
    forward = {ask: draw_window(augment, WHOLE_INSIDE, *ask) for ask in asked}
    backward = {ask: draw_window(augment, WHOLE_INSIDE, *ask) for ask in reversed(asked)}
    assert forward == backward
    # 4 x 6 starts, mirrored or not.
    assert len(set(forward.values())) == 48
    assert len({forward[0, step, 0] for step in range(10)}) > 3
    assert len({forward[0, 0, record] for record in range(10)}) > 3
    assert sum(forward[0, *where] != forward[1, *where] for _, *where in asked) > 100


def test_a_window_stays_what_it_was_in_earlier_versions() -> None:
    # A run that goes on after an upgrade must see the windows it would have seen.
    augment = Augment(flip_probability=0.5, crop_height=24, crop_width=32)
    assert draw_window(augment, WHOLE_INSIDE, 7, 41, 2974) == Window(2, 1, 3, 4, False)


@given(st.integers(1, 8), st.integers(1, 12), st.booleans(), st.integers(0, 1000))
def test_windows_lie_on_the_image_where_it_is_large_enough(
    rows: int, columns: int, mirrored: bool, step: int
) -> None:
    valid = np.zeros((8, 12), bool)
    valid[:rows, :columns] = True
    valid = valid[:, ::-1] if mirrored else valid
    window = draw_window(Augment(crop_height=32, crop_width=40), valid, 0, step, 0)
    cut = window.cut(valid)
    assert cut.shape == (4, 5)
    assert cut.sum() == min(rows, 4) * min(columns, 5)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_ends_of_the_probability_and_sides_left_whole(probability: float) -> None:
    augment = Augment(flip_probability=probability, crop_width=16)
    assert WHOLE.crops is False
    assert augment.crops is True
    for step in range(20):
        window = draw_window(augment, WHOLE_INSIDE, 0, step, 0)
        assert window.flip == bool(probability)
        assert (window.top, window.height, window.width) == (0, 6, 2)


def test_nothing_asked_for_is_the_whole_record() -> None:
    assert draw_window(WHOLE, WHOLE_INSIDE, 0, 0, 0) == Window(0, 0, 6, 9, False)


@pytest.mark.parametrize("side", ["crop_height", "crop_width"])
def test_more_than_a_record_has_is_refused(side: str) -> None:
    with pytest.raises(ValueError, match=r"does not fit into records of 48 x 72; lower crop_"):
        Augment(**{side: 80}).cut_size(48, 72)
