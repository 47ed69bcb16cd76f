"""The laws of every memory: never of the batch's own records, named by the seed, resumable."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.config.params import DistillationConfig, Params
from pipeline.loading.batch import Batch
from pipeline.loading.stream import stream
from pipeline.memory.bank_memory import BankMemory
from pipeline.memory.channel_memory import ChannelMemory
from pipeline.memory.contrast_memory import ContrastMemory, Kind
from pipeline.memory.queue_memory import QueueMemory
from pipeline.runtime.checkpoint import load_checkpoint, save_checkpoint
from store.reader import Reader

CPU = torch.device("cpu")
MEMORIES = (QueueMemory, BankMemory, ChannelMemory)
CASES: list[tuple[type, Kind]] = [
    *((memory, kind) for memory in MEMORIES[:2] for kind in ("pixel", "region")),
    (ChannelMemory, "channel"),
]
every_kind = pytest.mark.parametrize(("memory", "kind"), CASES)

Build = Callable[..., ContrastMemory]


@pytest.fixture
def build(tiny_store: Reader, tiny_params: Params) -> Build:
    """Build a memory, not yet filled."""
    sizes = {"channel_queue": 1000, "channel_contrast": 100, "channels_per_step": 50}
    settings: DistillationConfig = tiny_params.distillation.model_copy(update=sizes)
    return lambda memory, seed=0: memory(tiny_store.spec, settings, seed, CPU)


@pytest.fixture
def batches(tiny_store: Reader) -> list[Batch]:
    return list(stream(tiny_store, seed=0, batch_size=2, steps=range(3), device=CPU))


@pytest.mark.parametrize("memory", MEMORIES)
def test_it_is_a_contrast_memory(memory: type, build: Build) -> None:
    assert isinstance(build(memory), ContrastMemory)


@every_kind
def test_what_is_drawn_is_of_other_records(
    memory: type, kind: Kind, build: Build, batches: list[Batch], tiny_store: Reader, tmp_path: Path
) -> None:
    filled = build(memory)
    filled.fill(tiny_store, banks=tmp_path)
    found = filled.sample(kind, batches[0])
    assert found.usable.any()
    assert found.embeddings.dtype == torch.float32
    everything = replace(batches[0], record=torch.arange(len(tiny_store)))
    assert not filled.sample(kind, everything).usable.any()


@every_kind
def test_the_seed_names_the_draws(
    memory: type, kind: Kind, build: Build, batches: list[Batch], tiny_store: Reader, tmp_path: Path
) -> None:
    drawn = []
    for seed in (0, 0, 1):
        filled = build(memory, seed)
        filled.fill(tiny_store, banks=tmp_path)
        drawn.append(filled.sample(kind, batches[0]).embeddings)
    one, same, other = drawn
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@every_kind
def test_a_resumed_run_draws_as_if_never_stopped(
    memory: type, kind: Kind, build: Build, batches: list[Batch], tiny_store: Reader, tmp_path: Path
) -> None:
    first, second, third = batches
    one, other = build(memory), build(memory, seed=1)
    one.fill(tiny_store, banks=tmp_path)
    one.sample(kind, first)
    one.push(first)
    save_checkpoint(tmp_path / "last.pt", 1, {"memory": one})
    assert load_checkpoint(tmp_path / "last.pt", {"memory": other}) == 1
    other.fill(tiny_store, resumed=True, banks=tmp_path)
    for each in (one, other):
        each.push(second)
    for batch in (second, third):
        assert all(map(torch.equal, one.sample(kind, batch), other.sample(kind, batch)))
