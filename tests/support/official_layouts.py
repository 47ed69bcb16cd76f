"""Small datasets in the exact layouts of the official archives: names, ids, palettes, void.

Every function writes below a root, the same bytes for the same seed, and returns the section
`dataset` of params.yaml. An image shows each label in a colour of its own: it can be learned.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.datasets.classes import official_table

COUNTS = {"train": 3, "val": 2, "test": 1}
SIZE = (48, 64)
"""Height and width."""
BLOCK = 8
"""Side of the squares that labels are made of."""

Section = dict[str, Any]
LOOKS = np.random.default_rng(0).integers(40, 216, (256, 3))


def make_cityscapes(
    root: Path,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    size: tuple[int, int] = SIZE,
    labels: str = "ids",
) -> Section:
    """leftImg8bit/ and gtFine/ of two cities a split; the labels of test hold void ids alone.

    Beside *_labelIds.png lie the other files of the archive, and for `labels="train_ids"` what
    csCreateTrainIdLabelImgs writes.
    """
    classes = official_table("cityscapes")
    train_ids = classes.class_of_id()
    for split, number, random in _numbers(seed, counts):
        city = ("aachen", "bochum")[number % 2]
        stem = f"{city}_{number:06d}_000019"
        ids = _draw_ids(random, classes.label_ids, (0, 1, 3, 4), number, size)
        if split == "test":
            ids = random.choice(np.array((1, 3, 4), np.uint8), size)
        image = root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png"
        _save(_draw_image(random, ids), image)
        beside = root / f"gtFine/{split}/{city}/{stem}_gtFine"
        _save(Image.fromarray(ids), Path(f"{beside}_labelIds.png"))
        _save(Image.fromarray(ids.astype(np.uint16) * 1000), Path(f"{beside}_instanceIds.png"))
        _save(_draw_image(random, ids), Path(f"{beside}_color.png"))
        Path(f"{beside}_polygons.json").write_text("{}")
        if labels == "train_ids":
            _save(Image.fromarray(train_ids[ids]), Path(f"{beside}_labelTrainIds.png"))
    return {"kind": "cityscapes", "name": "cityscapes", "root": str(root), "labels": labels}


def make_voc(
    root: Path,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    size: tuple[int, int] = SIZE,
    augmented: bool = False,
    base: str = "VOCdevkit/VOC2012",
    mode: str = "P",
) -> Section:
    """JPEGImages/, SegmentationClass/ with the palette and a void border, ImageSets/.

    Augmented, SegmentationClassAug/ holds these and as many labels of SBD as train has, which have
    no void and are named by no split file. JPEGImages/ also holds an image without labels.
    """
    voc, folder = official_table("voc"), root / base
    stems: dict[str, list[str]] = {"train": [], "val": [], "sbd": []}
    wanted = {"train": counts["train"], "val": counts["val"]}
    for split, number, random in _numbers(seed, {**wanted, "sbd": counts["train"]}):
        stem = f"{2007 + list(stems).index(split)}_{number:06d}"
        stems[split].append(stem)
        void = (255,) if split != "sbd" else ()
        ids = _draw_ids(random, voc.label_ids, void, number, size)
        _save(_draw_image(random, ids), folder / f"JPEGImages/{stem}.jpg")
        labels = Image.fromarray(ids)
        if mode == "P":
            labels.putpalette(_voc_palette())
        if split != "sbd":
            _save(labels, folder / f"SegmentationClass/{stem}.png")
        if augmented:
            _save(labels, folder / f"SegmentationClassAug/{stem}.png")
    _save(Image.new("RGB", size[::-1]), folder / "JPEGImages/2012_009999.jpg")
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    for split in wanted:
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems[split]))
    return {"kind": "voc", "name": "voc", "root": str(root), "augmented": augmented}


def make_ade20k(
    root: Path,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    size: tuple[int, int] = SIZE,
    base: str = "ADEChallengeData2016",
) -> Section:
    """images/ and annotations/ of training and validation: 0 = void, 1..150."""
    label_ids, names = (
        official_table("ade20k").label_ids,
        {"train": "training", "val": "validation"},
    )
    for split, number, random in _numbers(seed, {split: counts[split] for split in names}):
        ids = _draw_ids(random, label_ids, (0,), number, size)
        stem = f"{names[split]}/ADE_{split}_{number + 1:08d}"
        _save(_draw_image(random, ids), root / base / f"images/{stem}.jpg")
        _save(Image.fromarray(ids), root / base / f"annotations/{stem}.png")
    (root / base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    return {"kind": "ade20k", "name": "ade20k", "root": str(root)}


def make_coco_stuff(
    root: Path,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    size: tuple[int, int] = SIZE,
) -> Section:
    """images/ and annotations/ of 2017, with a converter's *_labelTrainIds.png in the latter."""
    classes = official_table("coco_stuff")
    for split, number, random in _numbers(
        seed, {split: counts[split] for split in ("train", "val")}
    ):
        ids = _draw_ids(random, classes.label_ids, (255,), number, size)
        stem = f"{split}2017/{139 + number:012d}"
        _save(_draw_image(random, ids), root / f"images/{stem}.jpg")
        _save(Image.fromarray(ids), root / f"annotations/{stem}.png")
        converted = Image.fromarray(classes.class_of_id()[ids])
        _save(converted, root / f"annotations/{stem}_labelTrainIds.png")
    return {"kind": "coco_stuff", "name": "coco_stuff", "root": str(root)}


def make_camvid(
    root: Path,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    size: tuple[int, int] = SIZE,
    layout: str = "segnet",
) -> Section:
    """CamVid: `segnet`, `original` (two folders, SegNet's lists) or `sorted` (by split).

    The latter two hold labels in the 32 colours.
    """
    colours = np.array([rgb for rgb, _ in official_table("camvid").colours], np.uint8)
    lists: dict[str, str] = dict.fromkeys(counts, "")
    for split, number, random in _numbers(seed, counts):
        stem = f"{('0001TP', '0006R0', 'Seq05VD')[list(counts).index(split)]}_{number:06d}"
        lists[split] += (
            f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png\n"
        )
        if layout == "segnet":
            ids = _draw_ids(random, range(11), (11,), number, size)
            labels = Image.fromarray(ids)
            to_image, to_labels = f"{split}/{stem}.png", f"{split}annot/{stem}.png"
        else:
            ids = _draw_ids(random, range(len(colours) - 1), (len(colours) - 1,), number, size)
            labels = Image.fromarray(colours[ids])
            to_image, to_labels = f"{split}/{stem}.png", f"{split}_labels/{stem}_L.png"
        if layout == "original":
            to_image = f"701_StillsRaw_full/{stem}.png"
            to_labels = f"LabeledApproved_full/{stem}_L.png"
        _save(_draw_image(random, ids), root / to_image)
        _save(labels, root / to_labels)
    if layout != "sorted":
        for split, text in lists.items():
            (root / f"{split}.txt").write_text(text)
    return {"kind": "camvid", "name": "camvid", "root": str(root)}


def _numbers(seed: int, counts: Mapping[str, int]) -> list[tuple[str, int, np.random.Generator]]:
    """Every image of every split, with a random stream of its own."""
    return [
        (split, number, np.random.default_rng((seed, place, number)))
        for place, (split, count) in enumerate(counts.items())
        for number in range(count)
    ]


def _draw_ids(
    random: np.random.Generator,
    label_ids: Any,
    void_ids: tuple[int, ...],
    number: int,
    size: tuple[int, int],
) -> np.ndarray:
    """Squares of some classes from all over the table, other ones for each number; void below."""
    height, width = size
    present = np.roll(np.array(label_ids, np.uint8), -number)[:: max(1, len(label_ids) // 5)]
    squares = random.choice(present, (-(-height // BLOCK), -(-width // BLOCK)))
    squares.flat[: len(present)] = present[: squares.size]
    ids = squares.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[:height, :width]
    if void_ids:
        ids[-2:] = random.choice(np.array(void_ids, np.uint8), (2, width))
    return np.ascontiguousarray(ids)


def _draw_image(random: np.random.Generator, ids: np.ndarray) -> Image.Image:
    noise = random.integers(-30, 31, (*ids.shape, 3))
    return Image.fromarray((LOOKS[ids] + noise).astype(np.uint8))


def _voc_palette() -> list[int]:
    """The colour map of VOC: the bits of an id, dealt to red, green and blue from the top."""
    return [
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for index in range(256)
        for channel in range(3)
    ]


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
