"""Evaluation: every image once, at full size, with figures that match a count by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.datasets.decoding import decode_labels
from pipeline.datasets.index import Index, Sample, read_labels
from pipeline.evaluation.evaluate import evaluate, find_doubts, summarise
from pipeline.evaluation.inference import Inference
from pipeline.evaluation.label_files import write_prediction
from pipeline.models.network import Network, Output, build_network
from pipeline.runtime.distributed import Ranks

CPU = torch.device("cpu")


class Constant(Network):
    """Says one class everywhere."""

    stride = 8

    def __init__(self, num_classes: int, answer: int) -> None:
        super().__init__()
        self.num_classes, self.answer = num_classes, answer

    def forward(self, image: torch.Tensor) -> Output:
        batch, _, height, width = image.shape
        logits = torch.zeros(batch, self.num_classes, height // 8, width // 8)
        logits[:, self.answer] = 1
        return Output(logits, logits, None)


def test_a_constant_answer_counted_by_hand(tiny_index: Index) -> None:
    seen: list[tuple[int, int]] = []
    network = Constant(tiny_index.num_classes, answer=1)
    confusion = evaluate(
        network, tiny_index, "val", CPU, Inference(), lambda *told: seen.append(told)
    )
    labels = np.concatenate([read_labels(tiny_index, s).ravel() for s in tiny_index.splits["val"]])
    counted = np.bincount(labels[labels != 255], minlength=tiny_index.num_classes)
    assert confusion.sum(axis=1).tolist() == counted.tolist()
    assert confusion[:, 1].tolist() == counted.tolist()
    total = len(tiny_index.splits["val"])
    assert seen == [(done, total) for done in range(total + 1)]
    figures = summarise(confusion)
    assert figures["pixel_accuracy"] == pytest.approx(counted[1] / counted.sum())
    present = np.flatnonzero(counted)
    assert figures["miou"] == pytest.approx(counted[1] / counted.sum() / len(present))
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_count_every_image_once(size: int, tiny_index: Index) -> None:
    class Apart(Ranks):
        def sum(self, value: torch.Tensor) -> torch.Tensor:
            return value

    network = Constant(tiny_index.num_classes, answer=1)
    three = replace(tiny_index, splits={"val": tiny_index.splits["train"][:3]})
    whole = evaluate(network, three, "val", CPU, Inference())
    told: list[tuple[int, int]] = []
    shares = [
        evaluate(
            *(network, three, "val", CPU, Inference(batch_size=2)),
            progress=lambda *done: told.append(done),
            ranks=Apart(rank, size),
        )
        for rank in range(size)
    ]
    assert np.array_equal(sum(shares), whole)
    assert told == [(0, 2), (2, 2)]  # by the first alone, of its own images


@pytest.fixture
def mixed(tiny_index: Index, tmp_path: Path) -> Index:
    """Five images of three sizes, in no order of sizes."""
    sizes = [(16, 24), (32, 40), (16, 24), (20, 20), (16, 24)]
    samples = []
    for number, (height, width) in enumerate(sizes):
        generator = np.random.default_rng(number)
        labels = generator.integers(0, tiny_index.num_classes, (height, width), np.uint8)
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / f"labels{number}.png")
        files = (f"{number}.png", f"labels{number}.png")
        samples.append(Sample(f"val/{number}", *files, height, width))
    classes = replace(tiny_index.classes, label_ids=tuple(range(tiny_index.num_classes)))
    splits = {"val": tuple(samples)}
    return replace(tiny_index, root=str(tmp_path), classes=classes, splits=splits)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_batches_of_mixed_sizes_see_every_image_once(mixed: Index, batch_size: int) -> None:
    network = build_network("deeplabv3_resnet18", mixed.num_classes)
    seen: dict[str, tuple[int, ...]] = {}
    together = evaluate(
        network,
        mixed,
        "val",
        CPU,
        Inference(batch_size=batch_size),
        observe=lambda sample, labels, classes: seen.update({sample.key: tuple(classes.shape)}),
    )
    assert seen == {s.key: (s.height, s.width) for s in mixed.splits["val"]}
    assert np.array_equal(together, evaluate(network, mixed, "val", CPU, Inference()))


def test_predictions_are_saved_in_the_ids_of_the_label_files(mixed: Index, tmp_path: Path) -> None:
    table = replace(mixed.classes, label_ids=tuple(7 + 2 * k for k in range(mixed.num_classes)))
    sample = mixed.splits["val"][1]
    classes = np.arange(sample.height * sample.width).reshape(sample.height, sample.width)
    classes = (classes % mixed.num_classes).astype(np.uint8)
    path = write_prediction(tmp_path / "saved", sample, classes, table)
    assert path == tmp_path / "saved/1.png"
    assert np.array_equal(table.class_of_id()[decode_labels(path)], classes)
    assert decode_labels(path).min() == 7


def test_an_absent_class_is_none_and_not_zero() -> None:
    figures = summarise(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert figures["iou"] == [0.75, 0.8, None]
    assert figures["miou"] == pytest.approx((0.75 + 0.8) / 2)


def test_doubts_name_the_figure_and_the_classes() -> None:
    good, names = np.array([[9, 1, 0], [0, 8, 0], [0, 1, 7]]), ("road", "sidewalk", "sky")
    assert find_doubts(good, names, 0.5) == []
    (low,) = find_doubts(good, names, 0.9)
    assert low == "its mIoU is 0.858, below 0.9"
    (permuted,) = find_doubts(good[:, [1, 0, 2]], names, 0.1)
    assert permuted.startswith("it predicts road as sidewalk, sidewalk as road: ")
    assert find_doubts(np.zeros((3, 3), int), names, 0.1) == ["its mIoU is nan, below 0.1"]
