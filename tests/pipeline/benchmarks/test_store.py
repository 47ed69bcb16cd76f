"""The store's and the extraction's benchmarks, at a size that takes seconds."""

import math
from pathlib import Path

import pytest
import torch

from pipeline.benchmarks import extract, store
from pipeline.datasets import fingerprint_dataset, prepare_dataset
from pipeline.datasets.index import Index
from pipeline.params import Params

CPU = torch.device("cpu")


@pytest.fixture
def index(tiny_params: Params, tmp_path: Path) -> Index:
    dataset = tiny_params.dataset.model_copy(update={"num_train": 32})
    pixels = tmp_path / "pixels"
    pixels.mkdir()
    return prepare_dataset(dataset, fingerprint_dataset(dataset)["fingerprint"], pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_the_store_is_measured(
    index: Index, tiny_teacher, tiny_params: Params, folder: Path
) -> None:
    sizes = {"height": 32, "width": 64, "num_runs": 1}
    found = store.benchmark(index, tiny_teacher, tiny_params.store, CPU, folder, **sizes)
    assert all(math.isfinite(value) and value > -1e-6 for value in found.values()), found
    assert found["bytes_ratio"] < 0.7
    assert found["similarity_kl"] < 1e-4
    assert found["logits_kl"] < 1e-5


def test_extraction_is_measured(
    index: Index, tiny_teacher, tiny_params: Params, folder: Path
) -> None:
    sizes = {"height": 32, "width": 64, "num_runs": 1}
    found = extract.benchmark(index, tiny_teacher, tiny_params.store, CPU, folder, **sizes)
    assert found["overhead_ratio"] == pytest.approx(found["extract_s"] / found["forward_s"])
    assert found["views_per_s"] > 0
