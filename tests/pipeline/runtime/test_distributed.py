"""Two processes take the step that one takes with the whole batch."""

import multiprocessing
import os
import runpy
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config.params import Params, StoreConfig
from pipeline.models.network import build_network
from pipeline.ops.mean import Mean
from pipeline.runtime.checkpoint import SavedGenerator
from pipeline.runtime.distributed import (
    SINGLE_PROCESS,
    PerRank,
    Ranks,
    joined,
    synchronise_norms,
)
from pipeline.runtime.rng import seed_torch
from store.reader import Reader

CPU = torch.device("cpu")
take_and_save = runpy.run_path(str(Path(__file__).with_name("ranked_steps.py")))["take_and_save"]


def fork_ranks(take: Callable[[], None], size: int) -> None:
    """Run `take` on ranks as torchrun starts, without the seconds that importing torch takes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def run(rank: int) -> None:
        os.environ |= {**shared, "RANK": str(rank)}
        take()

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
    fork_ranks(partial(take_and_save, store.path, folder / "two"), 2)
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


def test_weights_are_equal_on_all_ranks_and_move_as_those_of_one_process(
    taken: dict[str, Any],
) -> None:
    """Last bits, which differ with the processor, grow by the critic's steps: 1e-4 of a move.

    Gradients that are summed instead of averaged would move the weights twice as far.
    """
    for name, weight in taken["first"]["weights"].items():
        assert torch.equal(weight, taken["second"]["weights"][name])
    expected, found = (torch.cat(list(taken[who]["moves"].values())) for who in ("one", "first"))
    assert expected.norm() > 0
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_queues_are_equal_on_all_ranks_and_those_of_one_process(taken: dict[str, Any]) -> None:
    for name in ("memory", "channels"):
        one, first, second = (taken[who]["states"][name] for who in taken)
        for queue in ("pixels", "regions") if name == "memory" else ("queue",):
            for array, expected in one[queue].items():
                torch.testing.assert_close(first[queue][array], expected)
                assert torch.equal(first[queue][array], second[queue][array])
        assert torch.equal(one["generator"], first["generator"])


def test_discriminators_are_equal_on_all_ranks(taken: dict[str, Any]) -> None:
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
    assert SINGLE_PROCESS.collect(True) == [True]
    mean = Mean(torch.tensor(6.0), torch.tensor(4))
    assert SINGLE_PROCESS.merge({"term": mean})["term"] == 1.5


def test_a_rank_that_was_not_saved_goes_on_as_it_began() -> None:
    drawn = []
    for rank in range(3):
        part = SavedGenerator(torch.Generator().manual_seed(rank))
        saved = [torch.Generator().manual_seed(10 + n).get_state() for n in range(2)]
        PerRank(part, Ranks(rank, 3)).load_state_dict(saved)
        drawn.append(part.state_dict())
    fresh = torch.Generator().manual_seed(2).get_state()
    assert all(map(torch.equal, drawn, [*saved, fresh]))


@pytest.mark.parametrize("name", ["deeplabv3_efficientnet_lite0", "deeplabv3_resnet18"])
def test_norms_that_ranks_share_compute_what_they_did(name: str) -> None:
    """timm's norms hold the activation of their layer."""
    seed_torch(0, "network")
    network = build_network(name, 3).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(image).logits
        shared = synchronise_norms(network)
        assert torch.equal(shared(image).logits, before)
    norms = [part for part in shared.modules() if isinstance(part, _BatchNorm)]
    assert norms
    assert all(isinstance(part, nn.SyncBatchNorm) for part in norms)


class WithSpare(nn.Module):
    """Has a layer that it does not call, as EfficientNet's encoders have."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.used(x)
        return value


def test_a_layer_that_is_not_called_stops_no_rank() -> None:
    def take() -> None:
        with joined(CPU) as ranks:
            module = ranks.replicate(WithSpare(), CPU)
            for _ in range(3):
                module(torch.ones(1, 2)).sum().backward()
            gradients = dict(module.module.named_parameters())
            assert gradients["used.weight"].grad.tolist() == [[3.0, 3.0]]  # of three passes

    fork_ranks(take, 2)  # which asserts that they end well
