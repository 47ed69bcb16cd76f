"""The memory of a run: full before step 1, never of the batch itself, and resumable."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.params import DistillationConfig, Params
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.memory.queue_memory import Memory
from store.reader import Reader

CPU = torch.device("cpu")


@pytest.fixture
def settings(tiny_params: Params) -> DistillationConfig:
    return tiny_params.distillation


def filled(store: Reader, settings: DistillationConfig, seed: int = 0) -> Memory:
    memory = Memory(store.spec, settings, seed, CPU)
    memory.fill(store)
    return memory


def batches(store: Reader) -> list[Batch]:
    return list(stream(store, LoaderConfig(0, 2), range(3), CPU))


def test_the_store_fills_both_queues(tiny_store: Reader, settings: DistillationConfig) -> None:
    memory = filled(tiny_store, settings)
    present = (tiny_store.column("region_pixels") > 0).sum(axis=0)
    filled_regions = memory._regions.num_filled.tolist()
    assert filled_regions == present.clip(max=settings.region_queue).tolist()
    assert memory._pixels.num_filled.sum() > 0


def test_contrast_is_class_balanced_and_never_of_the_batch(
    tiny_store: Reader, settings: DistillationConfig
) -> None:
    memory = filled(tiny_store, settings)
    batch = batches(tiny_store)[0]
    num_classes = tiny_store.spec.num_classes
    contrast = memory.region_contrast(batch)
    per_class = settings.region_contrast // num_classes + 1
    assert contrast.classes.bincount(minlength=num_classes).max() <= per_class
    own = tiny_store.read(batch.record.tolist(), ["region_center"])["region_center"]
    own_centers = {tuple(center) for record in own.tolist() for center in record if any(center)}
    usable = contrast.embeddings[contrast.usable]
    assert len(usable) > 0
    assert not {tuple(center) for center in usable.tolist()} & own_centers


def test_a_saved_memory_goes_on_as_if_never_saved(
    tiny_store: Reader, settings: DistillationConfig
) -> None:
    one, other = filled(tiny_store, settings), Memory(tiny_store.spec, settings, 0, CPU)
    first, second, third = batches(tiny_store)
    one.pixel_contrast(first)
    one.push(first)
    other.load_state_dict(one.state_dict())
    for memory in (one, other):
        memory.push(second)
    left, right = one.pixel_contrast(third), other.pixel_contrast(third)
    assert torch.equal(left.embeddings, right.embeddings)
    assert torch.equal(left.usable, right.usable)


def test_the_seed_names_the_order_of_the_fill(
    tiny_store: Reader, settings: DistillationConfig
) -> None:
    batch = batches(tiny_store)[0]
    one, same, other = (
        filled(tiny_store, settings, seed).pixel_contrast(batch).embeddings for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_uint8_queues_draw_nearly_what_float32_queues_draw(
    tiny_store: Reader, settings: DistillationConfig
) -> None:
    batch = batches(tiny_store)[0]
    small = settings.model_copy(update={"queue_storage": "uint8"})
    one, other = (filled(tiny_store, each).pixel_contrast(batch) for each in (settings, small))
    assert torch.equal(one.usable, other.usable)
    torch.testing.assert_close(one.embeddings, other.embeddings, rtol=0, atol=0.5 / 255 + 1e-6)
    assert not torch.equal(one.embeddings, other.embeddings)


def test_signed_embeddings_are_refused_by_uint8_queues(
    tiny_store: Reader, settings: DistillationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Reader.read

    def signed(self: Reader, *arguments: Any) -> dict[str, np.ndarray]:
        return {name: -array for name, array in read(self, *arguments).items()}

    monkeypatch.setattr(Reader, "read", signed)
    with pytest.raises(ValueError, match=r"region_center of .* choose bfloat16"):
        filled(tiny_store, settings.model_copy(update={"queue_storage": "uint8"}))
