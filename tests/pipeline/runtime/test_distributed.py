"""Two processes take the step that one takes with the whole batch."""

import multiprocessing
import os
import runpy
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.params import Params, StoreConfig
from pipeline.ops.mean import Mean
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from store.reader import Reader

take_and_save = runpy.run_path(str(Path(__file__).with_name("ranked_steps.py")))["take_and_save"]


def fork_ranks(store: Reader, folder: Path, size: int) -> None:
    """Start ranks as torchrun does, without the seconds in which each would import torch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def run(rank: int) -> None:
        os.environ |= {**shared, "RANK": str(rank)}
        take_and_save(store.path, folder)

    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=run, args=(rank,)) for rank in range(size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * size


@pytest.fixture(scope="module")
def taken(
    tiny_params: Params,
    build_store: Callable[[StoreConfig], Reader],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What one process did, and what each of two did, on views with padding.

    A channel's pooled map has four cells there: one alone, normalised, would be a mere sign.
    """
    crop = tiny_params.store.crop.model_copy(update={"height": 64, "width": 64})
    store = build_store(tiny_params.store.model_copy(update={"crop": crop}))
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("one", "two"):
        (folder / name).mkdir()
    take_and_save(store.path, folder / "one")
    fork_ranks(store, folder / "two", 2)
    names = {"one": "one/0.pt", "first": "two/0.pt", "second": "two/1.pt"}
    return {name: torch.load(folder / file) for name, file in names.items()}


def test_losses_are_those_of_one_process(taken: dict[str, Any]) -> None:
    for alone, *ranks in zip(*(taken[name]["terms"] for name in taken), strict=True):
        for rank in ranks:
            assert rank == pytest.approx(alone, rel=1e-5, abs=1e-6)
        assert all(alone.values())


def test_gradients_are_those_of_one_process(taken: dict[str, Any]) -> None:
    """Of the first step: later the critic's Adam has made whole steps of the last bits."""
    alone, *ranks = (taken[name]["first_gradients"] for name in taken)
    # The bias of a softmax's keys shifts all of its logits alike: its gradient is rounding.
    for name in set(alone) - {"context_adapter.key.bias"}:
        atol = 1e-5 * alone[name].abs().max().item()
        for gradients in ranks:
            torch.testing.assert_close(gradients[name], alone[name], rtol=1e-5, atol=atol)


def test_weights_are_those_of_one_process(taken: dict[str, Any]) -> None:
    for name, expected in taken["one"]["weights"].items():
        torch.testing.assert_close(taken["first"]["weights"][name], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(taken["first"]["weights"][name], taken["second"]["weights"][name])


def test_queues_are_equal_on_all_ranks_and_those_of_one_process(taken: dict[str, Any]) -> None:
    for name in ("memory", "channels"):
        one, first, second = (taken[who]["states"][name] for who in taken)
        for queue in ("pixels", "regions") if name == "memory" else ("queue",):
            for array, expected in one[queue].items():
                torch.testing.assert_close(first[queue][array], expected)
                assert torch.equal(first[queue][array], second[queue][array])
        assert torch.equal(one["generator"], first["generator"])


def test_critics_are_equal_on_all_ranks(taken: dict[str, Any]) -> None:
    one, first, second = (taken[who]["states"]["discriminator"]["critic"] for who in taken)
    for name, expected in one.items():
        torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(first[name], second[name])


def test_shares_cover_a_batch_once_in_order() -> None:
    whole = np.arange(12)
    parts = [Ranks(rank, 3).shard(whole) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_alone_nothing_is_changed() -> None:
    part = torch.ones(3, requires_grad=True)
    assert SINGLE_PROCESS.gather(part) is part
    assert SINGLE_PROCESS.is_main
    assert SINGLE_PROCESS.agree(True)
    assert not SINGLE_PROCESS.agree(False)
    mean = Mean(torch.tensor(6.0), torch.tensor(4))
    assert SINGLE_PROCESS.merge({"term": mean})["term"] == 1.5
