"""Images without labels, from a folder beside a labelled set to a student's step."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tiny_networks import TinyTeacher

from pipeline.benchmarks.trainer import build_objective, take_steps
from pipeline.config.params import Params
from pipeline.datasets.errors import DatasetError
from pipeline.datasets.folder import Config as FolderConfig
from pipeline.datasets.index import UNLABELLED, Index, read_labels
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset
from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction, plan_store
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.memory.queue_memory import QueueMemory
from stages.cli import main
from store.audit import audit
from store.reader import Reader, open_store
from store.schema import VOID
from store.writer import Writer

CPU = torch.device("cpu")
CLASSES = """\
classes:
  - {id: 0, name: sky, colour: [70, 130, 180]}
  - {id: 1, name: road, colour: [128, 64, 128]}
  - {id: 2, name: tree, colour: [107, 142, 35]}
void: [255]
"""
SHAPES = {"one": (32, 48), "city/two": (24, 64), "city/deep/three": (40, 40)}


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def dataset(tmp_path: Path) -> FolderConfig:
    """Two labelled images a split, and three without labels, some of them in folders."""
    random = np.random.default_rng(0)
    root = tmp_path / "root"
    for split in ("train", "val"):
        for number in range(2):
            save(root / f"images/{split}/{number}.png", random.integers(0, 256, (32, 64, 3), "u1"))
            save(root / f"labels/{split}/{number}.png", random.integers(0, 3, (32, 64), "u1"))
    for name, shape in SHAPES.items():
        save(root / f"more/{name}.png", random.integers(0, 256, (*shape, 3), "u1"))
    (root / "classes.yaml").write_text(CLASSES)
    return FolderConfig(kind="folder", name="some", root=str(root), unlabelled="more")


@pytest.fixture
def index(dataset: FolderConfig, tmp_path: Path) -> Index:
    return prepare_dataset(dataset, "", tmp_path / "pixels")


@pytest.fixture
def store(index: Index, tiny_params: Params, tmp_path: Path) -> Reader:
    teacher = TinyTeacher(index.num_classes)
    spec = plan_store(index, tiny_params.store, teacher, "tiny teacher", CPU)
    with Writer.open(tmp_path / "store", spec) as writer:
        assert extract(Extraction(index, teacher, tiny_params.store, spec, CPU), writer)
        writer.finish()
    return open_store(tmp_path / "store", expected=spec.fingerprint)


def load(store: Reader, records: list[int]) -> Batch:
    """One batch of these very records."""
    for batch in stream(store, LoaderConfig(0, len(store)), range(1), CPU):
        rows = torch.tensor([batch.record.tolist().index(record) for record in records])
        values = {name: x[rows] for name, x in vars(batch).items() if isinstance(x, torch.Tensor)}
        assert batch.targets is not None
        arrays = {name: x[rows] for name, x in batch.targets.arrays.items()}
        return Batch(**values, targets=replace(batch.targets, arrays=arrays))
    raise AssertionError("no batch")


def test_they_are_a_split_of_their_own_and_all_void(index: Index, tmp_path: Path) -> None:
    assert [len(index.splits[split]) for split in ("train", "val", UNLABELLED)] == [2, 2, 3]
    for sample in index.splits[UNLABELLED]:
        labels = read_labels(index, sample)
        assert labels.shape == SHAPES[sample.key.removeprefix("unlabelled/")]
        assert labels.dtype == np.uint8
        assert (labels == VOID).all()
    assert index.labelled_splits == ("train", "val")
    assert index.extracted == index.splits["train"] + index.splits[UNLABELLED]
    index.write(tmp_path / "out/index.json")
    assert Index.read(tmp_path / "out/index.json") == index


def test_a_folder_anywhere_is_the_same_dataset(
    dataset: FolderConfig, index: Index, tmp_path: Path
) -> None:
    there = Path(shutil.move(Path(dataset.root) / "more", tmp_path / "elsewhere"))
    dataset = dataset.model_copy(update={"unlabelled": str(there)})
    fingerprint_dataset(dataset)
    found = prepare_dataset(dataset, "", tmp_path / "pixels")
    assert found.fingerprint == index.fingerprint
    assert found.splits["train"] == index.splits["train"]


def test_both_fingerprints_notice_a_changed_file(
    dataset: FolderConfig, index: Index, tmp_path: Path
) -> None:
    cheap = fingerprint_dataset(dataset)
    save(Path(dataset.root) / "more/city/two.png", np.zeros((24, 64, 3), np.uint8))
    assert fingerprint_dataset(dataset) != cheap
    assert prepare_dataset(dataset, "", tmp_path / "pixels").fingerprint != index.fingerprint


def test_without_a_folder_the_fingerprints_are_those_of_before(
    dataset: FolderConfig, index: Index, tmp_path: Path
) -> None:
    plain = dataset.model_copy(update={"unlabelled": None})
    assert UNLABELLED not in fingerprint_dataset(plain)
    found = prepare_dataset(plain, "", tmp_path / "pixels")
    assert found.fingerprint != index.fingerprint
    assert found.extracted == found.splits["train"] == index.splits["train"]


def copy_of_val(root: Path) -> None:
    shutil.copy(root / "images/val/1.png", root / "more/city/copy.png")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a leak": (
        copy_of_val,
        "more/city/copy.png: image of a measured split: expected no image of val or test; found",
    ),
    "missing": (
        lambda root: shutil.rmtree(root / "more"),
        "more: missing folder: expected a folder of images; found nothing",
    ),
    "empty": (
        lambda root: [path.unlink() for path in (root / "more").rglob("*.png")],
        "more: empty folder: expected at least one image; found none",
    ),
    "not an image": (
        lambda root: (root / "more/city/list.txt").write_text("x"),
        "more/city/list.txt: not image: expected only files that hold image",
    ),
    "damaged": (
        lambda root: (root / "more/one.png").write_bytes(b""),
        "more/one.png: unreadable: expected a whole image file",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_them_is_found(name: str, dataset: FolderConfig, tmp_path: Path) -> None:
    breaks, message = WRONG[name]
    breaks(Path(dataset.root))
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(dataset, "", tmp_path / "pixels")
    assert len(caught.value.findings) == 1
    assert message in str(caught.value)


def test_a_store_holds_their_views_and_nothing_of_their_classes(
    store: Reader, index: Index
) -> None:
    assert list(store.column("key")) == [sample.key for sample in index.extracted]
    arrays = store.read(range(len(store)), ["labels", "region_pixels", "pixel_sample_class"])
    assert (arrays["labels"][2:] == VOID).all()
    assert (arrays["region_pixels"][2:] == 0).all()
    assert (arrays["pixel_sample_class"][2:] == VOID).all()
    assert (arrays["pixel_sample_class"][:2] != VOID).any()
    found = audit(store)
    assert (found["images"], found["records"]) == (5, 5)


def test_every_pixel_that_is_not_padding_is_an_anchor(store: Reader) -> None:
    batch = load(store, [0, 2, 3, 4])
    assert torch.equal(batch.anchors[1:], batch.grid_valid[1:])
    assert batch.anchors[1:].any()
    assert torch.equal(batch.anchors[0], batch.grid_labels[0] != VOID)


def test_no_embedding_of_theirs_enters_a_queue(store: Reader, tiny_params: Params) -> None:
    memory = QueueMemory(store.spec, tiny_params.distillation, 0, CPU)
    memory.fill(store)
    before = {kind: deepcopy(queue.state_dict()) for kind, queue in memory._queues.items()}
    memory.push(load(store, [2, 3, 4]))
    for kind, queue in memory._queues.items():
        for name, value in queue.state_dict().items():
            assert torch.equal(value, before[kind][name])
    memory.push(load(store, [0]))
    assert any(
        not torch.equal(value, before[kind][name])
        for kind, queue in memory._queues.items()
        for name, value in queue.state_dict().items()
    )


def test_a_batch_without_any_label_trains(store: Reader, tiny_params: Params) -> None:
    objective = build_objective(tiny_params.students["r18_cirkd"], store.spec, CPU)
    objective.fill(store)
    batches = iter([load(store, [2, 3]), load(store, [4, 2])])
    before = {name: value.clone() for name, value in objective.modules.named_parameters()}
    for result in take_steps(objective, tiny_params.training, batches):
        assert torch.isfinite(result.total)
        assert result.terms["task"] == 0
        assert all(result.terms[name] > 0 for name in ("kd", "minibatch_pixel", "memory_pixel"))
    after = dict(objective.modules.named_parameters())
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_no_network_is_measured_on_them(index: Index, tmp_path: Path) -> None:
    index.write(tmp_path / "index.json")
    words = ["evaluate", str(tmp_path / "index.json"), "student.pt", "out.json"]
    done = CliRunner().invoke(main, [*words, "--split", UNLABELLED])
    assert done.exit_code == 1
    assert "has no unlabelled; expected one of train, val" in done.output
