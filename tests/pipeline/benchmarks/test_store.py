"""The store's and the extraction's benchmarks, at a size that takes seconds."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.benchmarks import extract, store
from pipeline.config.params import Params
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset
from pipeline.extraction.job import Extraction, plan_store

CPU = torch.device("cpu")


@pytest.fixture
def job(tiny_params: Params, tiny_teacher, tmp_path: Path) -> Extraction:
    """32 images, as the benchmarks want them."""
    dataset = tiny_params.dataset.model_copy(update={"num_train": 32})
    pixels = tmp_path / "pixels"
    pixels.mkdir()
    index = prepare_dataset(dataset, fingerprint_dataset(dataset)["fingerprint"], pixels)
    spec = plan_store(index, tiny_params.store, tiny_teacher, "tiny teacher", CPU)
    return Extraction(index, tiny_teacher, tiny_params.store, spec, CPU)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_the_store_is_measured(job: Extraction, folder: Path) -> None:
    sizes = {"height": 32, "width": 64, "num_runs": 1}
    found = store.benchmark(job, folder, **sizes)
    assert all(math.isfinite(value) and value > -1e-6 for value in found.values()), found
    assert found["bytes_ratio"] < 0.7
    assert found["similarity_kl"] < 1e-4
    assert found["logits_kl"] < 1e-5


def test_extraction_is_measured(job: Extraction, folder: Path) -> None:
    sizes = {"height": 32, "width": 64, "num_runs": 1}
    found = extract.benchmark(job, folder, **sizes)
    assert found["overhead_ratio"] == pytest.approx(found["extract_s"] / found["forward_s"])
    assert found["views_per_s"] > 0


def test_fewer_images_are_refused(job: Extraction, folder: Path) -> None:
    index = replace(job.index, splits={"train": job.index.splits["train"][:31]})
    with pytest.raises(ValueError, match=r"expected 32 training images or more .* found 31"):
        store.benchmark(job.replan(job.settings, index), folder, height=32, width=64)
