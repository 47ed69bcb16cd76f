"""Image, labels and padding stay aligned, and a view depends on its arguments only."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config.params import Crop
from pipeline.datasets.views import MEAN, PADDING_COLOUR, STD, View, draw_view
from store.grid import nearest
from store.schema import VOID

CROP = Crop(height=32, width=48, scale_min=0.5, scale_max=2.0, flip_probability=0.5)
sides = st.integers(1, 120)
views = st.builds(
    draw_view,
    st.builds(
        lambda height, width: Crop(
            height=8 * height, width=8 * width, scale_min=0.5, scale_max=2.0, flip_probability=0.5
        ),
        st.integers(2, 8),
        st.integers(2, 8),
    ),
    st.integers(0, 2**32 - 1),
    st.text(max_size=5),
    st.integers(0, 3),
    sides,
    sides,
)


def coordinates(view: View) -> np.ndarray:
    """An image whose red is the row, green the column, blue always 200."""
    rows, columns = np.mgrid[: view.source_height, : view.source_width]
    return np.stack([rows, columns, np.full_like(rows, 200)], axis=-1).astype(np.uint8)


def at_scale_one(view: View) -> View:
    """The same view of an unscaled image, its window moved to where it may lie."""
    top = min(view.top, max(0, view.source_height - view.crop_height))
    left = min(view.left, max(0, view.source_width - view.crop_width))
    return replace(view, scale=1.0, top=top, left=left)


@given(views)
def test_coordinates_stay_aligned_at_scale_one(view: View) -> None:
    view = at_scale_one(view)
    source = coordinates(view)
    identity = source[..., 0].astype(np.int32) * 1000 + source[..., 1]
    image, valid = view.image(source), view.valid()
    labels = view.labels(identity)

    rows, columns = np.divmod(labels, 1000)
    assert np.array_equal(image[0][valid], rows[valid])
    assert np.array_equal(image[1][valid], columns[valid])
    assert (image[2][valid] == 200).all()
    assert (image[:, ~valid] == np.array(PADDING_COLOUR)[:, None]).all()
    assert (labels[~valid] == VOID).all()

    first = labels[0, -1 if view.flip else 0]
    assert first == view.top * 1000 + view.left
    height, width = view.valid_size
    assert len(np.unique(labels[valid])) == height * width == valid.sum()


@given(views)
def test_coordinates_stay_aligned_when_scaled(view: View) -> None:
    source = coordinates(view)
    image, valid = view.image(source).astype(float), view.valid()
    for channel in (0, 1):
        picked = view.labels(source[..., channel]).astype(float)
        # Bilinear and nearest differ by half a source pixel at most, and by what a downscaling
        # filter that hangs over the border leaves out there.
        slack = 0.5 + 0.5 + (1 / view.scale if view.scale < 1 else 0)
        assert (np.abs(image[channel] - picked)[valid] <= slack).all()
    assert (image[2][valid] == 200).all()
    assert (view.labels(np.zeros(source.shape[:2], np.uint8))[~valid] == VOID).all()
    assert (image[:, ~valid] == np.array(PADDING_COLOUR)[:, None]).all()


@given(views)
def test_resizing_the_window_equals_cropping_the_resized_image(view: View) -> None:
    source = np.random.default_rng(0).integers(
        0, 256, (view.source_height, view.source_width, 3), np.uint8
    )
    height, width = view.scaled_size
    whole = np.asarray(Image.fromarray(source).resize((width, height), Image.Resampling.BILINEAR))
    inside_height, inside_width = view.valid_size
    expected = whole[view.top : view.top + inside_height, view.left : view.left + inside_width]
    found = replace(view, flip=False).image(source)[:, :inside_height, :inside_width]
    difference = np.abs(found.transpose(1, 2, 0).astype(int) - expected.astype(int))
    # Pillow keeps the box in 32-bit floats, so each of its two rounded passes may tip by one. On
    # noise, being off by a tenth of a pixel would show many times that.
    assert difference.max(initial=0) <= 2


@given(views)
def test_flip_mirrors_the_finished_window_and_twice_is_the_identity(view: View) -> None:
    source = coordinates(view)
    labels = source[..., 1]
    other = replace(view, flip=not view.flip)
    assert np.array_equal(other.image(source), view.image(source)[..., ::-1])
    assert np.array_equal(other.labels(labels), view.labels(labels)[:, ::-1])
    assert np.array_equal(other.valid(), view.valid()[:, ::-1])
    assert replace(other, flip=not other.flip) == view


@given(views)
def test_shapes_types_and_memory(view: View) -> None:
    source = coordinates(view)
    image, labels, valid = view.image(source), view.labels(source[..., 0]), view.valid()
    assert (image.shape, image.dtype) == ((3, view.crop_height, view.crop_width), np.uint8)
    assert (labels.shape, labels.dtype) == ((view.crop_height, view.crop_width), np.uint8)
    assert (valid.shape, valid.dtype) == (labels.shape, np.bool_)
    assert all(array.flags.c_contiguous for array in (image, labels, valid))


@given(views)
def test_a_labelled_cell_of_the_grid_is_valid(view: View) -> None:
    zeros = np.zeros((view.source_height, view.source_width), np.uint8)
    grid = view.grid_valid(8)
    assert grid.shape == (view.crop_height // 8, view.crop_width // 8)
    labelled = nearest(view.labels(zeros), *grid.shape) != VOID
    assert np.array_equal(grid, labelled)


def test_grid_of_a_size_the_stride_does_not_divide() -> None:
    view = View(20, 27, 1.0, False, 0, 0, 20, 27)
    assert view.grid_valid(8).shape == (3, 4)
    assert view.grid_valid(8).all()


def test_padding_of_a_known_window() -> None:
    view = View(2, 3, 1.0, True, 0, 0, 4, 5)
    expected = np.array([[255, 255, 2, 1, 0], [255, 255, 5, 4, 3], [255] * 5, [255] * 5])
    assert np.array_equal(view.labels(np.arange(6, dtype=np.uint8).reshape(2, 3)), expected)
    assert np.array_equal(view.valid(), expected != 255)


@given(views, st.integers(0, 2**32 - 1))
def test_drawn_windows_lie_on_the_image(view: View, seed: int) -> None:
    height, width = view.scaled_size
    assert view.top == 0 or view.top + view.crop_height <= height
    assert view.left == 0 or view.left + view.crop_width <= width
    assert view.valid_size == (min(height, view.crop_height), min(width, view.crop_width))


def test_drawing_is_a_pure_function_of_its_arguments() -> None:
    keys = [f"train/{number:04d}" for number in range(20)]
    asked = [(key, index) for key in keys for index in range(3)]
    forward = {ask: draw_view(CROP, 7, *ask, 100, 90) for ask in asked}
    backward = {ask: draw_view(CROP, 7, *ask, 100, 90) for ask in reversed(asked)}
    assert forward == backward
    assert len(set(forward.values())) == len(asked)
    assert draw_view(CROP, 8, *asked[0], 100, 90) != forward[asked[0]]


def test_a_view_stays_what_it_was_in_earlier_versions() -> None:
    # A store's fingerprint names seed and ranges only; another stream of chance under the same
    # fingerprint would mix two sets of views.
    drawn = draw_view(CROP, 7, "train/0001TP_006690", 1, 360, 480)
    assert drawn == View(360, 480, 1.3, True, 100, 96, 32, 48)


def test_every_scale_window_and_flip_is_drawn() -> None:
    drawn = [draw_view(CROP, 0, str(number), 0, 36, 50) for number in range(2000)]
    assert sorted({view.scale for view in drawn}) == [round(0.1 * step, 1) for step in range(5, 21)]
    unscaled = [view for view in drawn if view.scale == 1]
    assert {view.top for view in unscaled} == set(range(5))
    assert {view.left for view in unscaled} == set(range(3))
    assert 800 < sum(view.flip for view in drawn) < 1200


@pytest.mark.parametrize(("probability", "flips"), [(0.0, {False}), (1.0, {True})])
def test_flip_probability_at_its_ends(probability: float, flips: set[bool]) -> None:
    crop = CROP.model_copy(update={"flip_probability": probability})
    assert {draw_view(crop, 0, str(number), 0, 50, 50).flip for number in range(50)} == flips


def test_a_single_scale_need_not_lie_on_tenths() -> None:
    crop = CROP.model_copy(update={"scale_min": 0.75, "scale_max": 0.75})
    assert draw_view(crop, 0, "a", 0, 50, 50).scale == 0.75


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 8))
def test_nearest_is_torch_nearest_on_feature_grids(height: int, width: int, stride: int) -> None:
    array = np.random.default_rng(0).random((2, height * stride, width * stride), np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(array)[None], size=(height, width))
    assert np.array_equal(nearest(array, height, width), expected[0].numpy())


@given(sides, sides, sides, sides)
def test_nearest_by_its_definition(height: int, width: int, to_height: int, to_width: int) -> None:
    array = np.arange(height * width).reshape(height, width)
    rows, columns = np.divmod(nearest(array, to_height, to_width), width)
    assert [*rows[:, 0]] == [i * height // to_height for i in range(to_height)]
    assert [*columns[0]] == [j * width // to_width for j in range(to_width)]


def test_another_images_array_is_refused() -> None:
    view = View(10, 20, 1.0, False, 0, 0, 16, 16)
    with pytest.raises(ValueError, match=r"\(10, 20, 3\); found \(20, 10, 3\)"):
        view.image(np.zeros((20, 10, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\(10, 20\); found \(10, 21\)"):
        view.labels(np.zeros((10, 21), np.uint8))


def test_padding_is_zero_after_normalisation() -> None:
    normalised = (np.array(PADDING_COLOUR) / 255 - MEAN) / STD
    assert np.abs(normalised).max() < 0.5 / 255 / min(STD)


def test_neither_views_nor_datasets_load_torch() -> None:
    modules = "pipeline.datasets.views, pipeline.datasets.prepare"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
