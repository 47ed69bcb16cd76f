"""The class tables that come with the package are those of the datasets."""

import pytest
from torchvision.datasets import Cityscapes
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet101_Weights

from pipeline.datasets.classes import class_table, official_table

SIZES = {"cityscapes": 19, "voc": 21, "ade20k": 150, "coco_stuff": 171, "camvid": 11}


@pytest.mark.parametrize("name", SIZES)
def test_every_class_has_a_name_a_colour_and_an_id_of_its_own(name: str) -> None:
    table = official_table(name)
    assert len({*table.names}) == len({*table.label_ids}) == len(table.palette) == SIZES[name]
    assert not {*table.label_ids} & {*table.void_ids}
    assert all(name == name.strip() for name in table.names)


def test_cityscapes_is_torchvisions() -> None:
    table = official_table("cityscapes")
    classes = [entry for entry in Cityscapes.classes if entry.id >= 0]
    trained = sorted(
        (entry for entry in classes if not entry.ignore_in_eval), key=lambda e: e.train_id
    )
    assert table.names == tuple(entry.name for entry in trained)
    assert table.palette == tuple(entry.color for entry in trained)
    assert table.label_ids == tuple(entry.id for entry in trained)
    assert table.void_ids == tuple(entry.id for entry in classes if entry.ignore_in_eval)


def test_voc_is_in_the_order_of_torchvisions_weights() -> None:
    categories = DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    table = official_table("voc")
    assert table.names[1:] == tuple(categories[1:])
    assert table.label_ids == tuple(range(21))


def test_the_things_of_coco_stuff_are_cocos() -> None:
    categories = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    table = official_table("coco_stuff")
    things = {n - 1: name for n, name in enumerate(categories) if n and name != "N/A"}
    assert dict(zip(table.label_ids[:80], table.names[:80], strict=True)) == things


def test_camvid_has_32_colours() -> None:
    colours = dict(official_table("camvid").colours)
    assert len(colours) == 32
    assert {*colours.values()} == {*range(11), 255}


def test_default_colours_are_pascal_vocs() -> None:
    table = class_table(map(str, range(21)))
    assert table.palette == official_table("voc").palette
    assert table.label_ids == tuple(range(21))
    assert len(set(class_table(map(str, range(255))).palette)) == 255


@pytest.mark.parametrize(
    ("palette", "label_ids"),
    [
        ([(0, 0, 0)], None),
        ([(0, 0, 256), (0, 0, 0)], None),
        ([(0, 0), (0, 0, 0)], None),
        (None, [1]),
        (None, [1, 1]),
        (None, [1, 256]),
    ],
)
def test_colours_and_ids_that_do_not_fit_are_refused(
    palette: list[tuple[int, ...]] | None, label_ids: list[int] | None
) -> None:
    with pytest.raises(ValueError, match=r"expected|validation error"):
        class_table("ab", palette, label_ids)
