"""Fresh views: a pure order that never repeats a record, equal to the store where it overlaps."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch

from pipeline.benchmarks.online import fresh_batches, fresh_records, online_batch, query_teacher
from pipeline.config.params import StoreConfig
from pipeline.extraction.job import Extraction
from pipeline.loading.stream import LoaderConfig, stream
from store.reader import Reader

CPU = torch.device("cpu")
ORDER = {"seed": 3, "batch_size": 2}


@pytest.fixture
def settings(tiny_params) -> StoreConfig:
    return tiny_params.store


def test_no_record_comes_twice_and_every_epoch_is_another_view() -> None:
    records = np.stack(list(fresh_records(7, 4, steps=range(30), **ORDER)))
    assert len(np.unique(records)) == records.size
    epochs = np.arange(30) // 3  # three batches of two out of seven images
    assert (records // 7 == epochs[:, None]).all()


def test_records_are_a_function_of_the_step() -> None:
    whole = list(fresh_records(7, 4, steps=range(9), **ORDER))
    rest = list(fresh_records(7, 4, steps=range(5, 9), **ORDER))
    np.testing.assert_array_equal(whole[5:], rest)


def test_fewer_images_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 2, but there are 1 training images"):
        next(fresh_records(1, 4, steps=range(1), **ORDER))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_first_epoch_is_that_of_a_store_of_one_view(
    tiny_store: Reader,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    num_workers: int,
) -> None:
    job = tiny_job(settings)
    stored = stream(tiny_store, LoaderConfig(**ORDER), range(3), CPU)
    fresh = fresh_batches(job, steps=range(3), num_workers=num_workers, **ORDER)
    for one, other in zip(stored, fresh, strict=True):
        assert other.targets is None
        for name in ("record", "image", "labels", "grid_labels", "grid_valid"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        asked = query_teacher(job, other)
        again = online_batch(job, other.record.tolist())
        assert asked.targets is not None
        assert again.targets is not None
        assert asked.targets.arrays.keys() == again.targets.arrays.keys()
        for name, values in asked.targets.arrays.items():
            assert torch.equal(values, again.targets.arrays[name]), name


def test_later_epochs_show_other_windows(
    tiny_job: Callable[[StoreConfig], Extraction], settings: StoreConfig
) -> None:
    batches = list(islice(fresh_batches(tiny_job(settings), steps=range(6), **ORDER), 6))
    pictures = {
        record: image
        for batch in batches
        for record, image in zip(batch.record.tolist(), batch.image, strict=True)
    }
    assert sorted(pictures) == list(range(12))
    assert any(not torch.equal(pictures[n], pictures[n + 6]) for n in range(6))
