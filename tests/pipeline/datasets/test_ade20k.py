"""ADE20K in its official folders, and its shift by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_layouts import make_ade20k
from PIL import Image

from pipeline.datasets.errors import DatasetError
from pipeline.datasets.index import Index, read_image, read_labels

Prepare = Callable[..., Index]


@pytest.mark.parametrize("base", ["ADEChallengeData2016", "."])
def test_0_is_void_and_classes_begin_at_1(base: str, prepare: Prepare, tmp_path: Path) -> None:
    index = prepare(make_ade20k(tmp_path, base=base))
    assert (index.num_classes, index.class_names[0], index.class_names[149]) == (
        150,
        "wall",
        "flag",
    )
    assert [sample.key for sample in index.splits["val"]] == [
        f"val/ADE_val_{number:08d}" for number in (1, 2)
    ]
    for sample in index.splits["train"]:
        ids = np.asarray(Image.open(tmp_path / sample.labels))
        assert {*ids.flat} > {0}
        assert np.array_equal(read_labels(index, sample), ids - np.uint8(1))


SHIFTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "made already": (lambda ids: ids - np.uint8(1), "ids shifted down already, it seems"),
    "made twice": (lambda ids: ids - np.uint8(2), "ids shifted down twice, it seems"),
    "the other way": (lambda ids: np.maximum(ids, 1), "ids without void"),
    "made already, without void": (
        lambda ids: np.arange(ids.size, dtype=np.uint8).reshape(ids.shape) % 150,
        "ids shifted down already, it seems",
    ),
}


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_by_one_is_told(name: str, prepare: Prepare, tmp_path: Path) -> None:
    section = make_ade20k(tmp_path)
    shift, message = SHIFTS[name]
    for path in tmp_path.glob("ADEChallengeData2016/annotations/*/*.png"):
        Image.fromarray(shift(np.asarray(Image.open(path)))).save(path)
    with pytest.raises(DatasetError, match=rf"all labels: {message}: .*annotations as they come"):
        prepare(section)


def test_grey_and_cmyk_jpegs_are_images_like_others(prepare: Prepare, tmp_path: Path) -> None:
    section = make_ade20k(tmp_path)
    images = sorted(tmp_path.glob("ADEChallengeData2016/images/training/*.jpg"))
    expected = [np.asarray(Image.open(path)).astype(int) for path in images]
    for path, mode in zip(images, ("L", "CMYK", "RGB"), strict=True):
        Image.open(path).convert(mode).save(path, quality=100, subsampling=0)
    index = prepare(section)
    grey, cmyk, rgb = (read_image(index, sample).astype(int) for sample in index.splits["train"])
    assert np.ptp(grey, axis=-1).max() == 0
    assert np.abs(grey[..., 0] - expected[0] @ (0.299, 0.587, 0.114)).mean() < 3
    assert np.abs(cmyk - expected[1]).mean() < 3
    assert np.abs(rgb - expected[2]).mean() < 3
