"""The queues of a run: full before step 1, class-balanced, never of the batch itself."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.params import DistillationConfig, Params
from pipeline.loading.batch import Batch
from pipeline.loading.stream import stream
from pipeline.memory.queue_memory import QueueMemory
from store.reader import Reader

CPU = torch.device("cpu")


@pytest.fixture
def settings(tiny_params: Params) -> DistillationConfig:
    return tiny_params.distillation


def filled(store: Reader, settings: DistillationConfig, seed: int = 0) -> QueueMemory:
    memory = QueueMemory(store.spec, settings, seed, CPU)
    memory.fill(store)
    return memory


def batches(store: Reader) -> list[Batch]:
    return list(stream(store, seed=0, batch_size=2, steps=range(3), device=CPU))


def test_the_store_fills_both_queues(tiny_store: Reader, settings: DistillationConfig) -> None:
    memory = filled(tiny_store, settings)
    present = (tiny_store.column("region_pixels") > 0).sum(axis=0)
    filled_regions = memory._queues["region"].num_filled.tolist()
    assert filled_regions == present.clip(max=settings.region_queue).tolist()
    assert memory._queues["pixel"].num_filled.sum() > 0


def test_contrast_is_class_balanced_and_never_of_the_batch(
    tiny_store: Reader, settings: DistillationConfig
) -> None:
    memory = filled(tiny_store, settings)
    batch = batches(tiny_store)[0]
    num_classes = tiny_store.spec.num_classes
    contrast = memory.sample("region", batch)
    per_class = settings.region_contrast // num_classes + 1
    assert contrast.classes.bincount(minlength=num_classes).max() <= per_class
    own = tiny_store.read(batch.record.tolist(), ["region_center"])["region_center"]
    own_centers = {tuple(center) for record in own.tolist() for center in record if any(center)}
    usable = contrast.embeddings[contrast.usable]
    assert len(usable) > 0
    assert not {tuple(center) for center in usable.tolist()} & own_centers


def test_uint8_queues_draw_nearly_what_float32_queues_draw(
    tiny_store: Reader, settings: DistillationConfig
) -> None:
    batch = batches(tiny_store)[0]
    small = settings.model_copy(update={"queue_storage": "uint8"})
    one, other = (filled(tiny_store, each).sample("pixel", batch) for each in (settings, small))
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
