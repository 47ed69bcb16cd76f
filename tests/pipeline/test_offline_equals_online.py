"""The promise of the project: a stored teacher teaches what a live teacher teaches."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pipeline.benchmarks.online import online_batch
from pipeline.config.methods import METHODS, TERMS
from pipeline.config.params import Encodings, Params, StoreConfig, StudentConfig
from pipeline.distillation.objective import Objective
from pipeline.extraction.job import Extraction
from pipeline.loading.batch import Batch, Targets
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.models.network import build_network
from pipeline.runtime.rng import seed_torch
from store.reader import Reader

CPU = torch.device("cpu")
OWN = ("record", "image", "labels", "grid_labels", "grid_valid")
EXACT = Encodings(logits="float32", features="float32")

Gradient = Mapping[str, Tensor]
"""Of every parameter that has one, by name."""


class Ways(NamedTuple):
    """The same batches twice: from a store, and from a live teacher."""

    reader: Reader
    stored: list[Batch]
    online: list[Batch]


def both_ways(reader: Reader, job: Extraction, num_steps: int) -> Ways:
    steps = range(num_steps)
    stored = list(stream(reader, LoaderConfig(0, 2), steps, CPU))
    online = [online_batch(job, batch.record.tolist()) for batch in stored]
    return Ways(reader, list(map(copied, stored)), list(map(copied, online)))


def copied(batch: Batch) -> Batch:
    """The batch where torch allocates: a product may round otherwise at another alignment."""
    assert batch.targets is not None
    arrays = {name: copy(x) for name, x in batch.targets.arrays.items()}
    return Batch(**{name: copy(getattr(batch, name)) for name in OWN}, targets=Targets(arrays))


def copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


@pytest.fixture(scope="module")
def exact(
    tiny_params: Params,
    tiny_job: Callable[[StoreConfig], Extraction],
    build_store: Callable[[StoreConfig], Reader],
) -> Ways:
    # One record a forward pass: outputs differ in the last bits between batch compositions.
    settings = tiny_params.store.model_copy(update={"encodings": EXACT, "forward_batch": 1})
    return both_ways(build_store(settings), tiny_job(settings), 4)


def run_with(tiny_params: Params, **objective: object) -> StudentConfig:
    return StudentConfig.model_validate(tiny_params.students["r18_ce"].model_dump() | objective)


def begin(run: StudentConfig, reader: Reader) -> Objective:
    """A fresh student and whatever learns beside it, the same for the same run."""
    seed_torch(run.seed, "test")
    student = build_network(run.architecture, reader.spec.num_classes).train()
    objective = Objective(student, reader.spec, run, CPU)
    objective.fill(reader)
    return objective


def gradient_of(objective: Objective) -> Gradient:
    named = objective.modules.named_parameters()
    return {name: p.grad for name, p in named if p.grad is not None}


def losses_and_gradient(
    run: StudentConfig, reader: Reader, batches: list[Batch]
) -> tuple[list[dict[str, float]], Gradient]:
    """Every term of every step, and the gradient summed over the steps; no weight moves."""
    objective, seen = begin(run, reader), []
    for batch in batches:
        terms = objective.compute_terms(batch)
        weighted = [objective.weights[name] * value for name, value in terms.items()]
        torch.stack(weighted).sum().backward()
        seen.append({name: value.item() for name, value in terms.items()})
    return seen, gradient_of(objective)


def assert_same_gradient(stored: Gradient, online: Gradient) -> None:
    assert stored.keys() == online.keys()
    assert [name for name, x in online.items() if not torch.equal(stored[name], x)] == []
    assert online["student.encoder.conv1.weight"].abs().sum() > 0


def test_a_float32_store_gives_back_what_the_teacher_says_bit_for_bit(exact: Ways) -> None:
    for stored, online in zip(exact.stored, exact.online, strict=True):
        for name in OWN:
            assert torch.equal(getattr(stored, name), getattr(online, name)), name
        assert stored.targets is not None
        assert online.targets is not None
        assert stored.targets.arrays.keys() == online.targets.arrays.keys()
        for name, array in online.targets.arrays.items():
            assert torch.equal(stored.targets.arrays[name], array), name


@pytest.mark.parametrize("method", METHODS)
def test_offline_equals_online(method: str, exact: Ways, tiny_params: Params) -> None:
    """Every term of a method and the gradient of their sum, over steps: queues, order, critic."""
    run = run_with(tiny_params, method=method)
    steps = slice(4 if method == "cirkd" else 2)
    stored, stored_gradient = losses_and_gradient(run, exact.reader, exact.stored[steps])
    online, live_gradient = losses_and_gradient(run, exact.reader, exact.online[steps])
    assert set(stored[0]) == {"task", "auxiliary", *METHODS[method]}
    assert stored == online
    assert_same_gradient(stored_gradient, live_gradient)


Singly = dict[str, tuple[Tensor, Gradient]]


@pytest.fixture(scope="module")
def singly(exact: Ways, tiny_params: Params) -> tuple[Singly, Singly]:
    """Every term's value and gradient on one batch, stored and live; one student for all."""
    run = run_with(tiny_params, method=None, terms=dict.fromkeys(TERMS, 1.0))

    def compute(batch: Batch) -> Singly:
        objective, found = begin(run, exact.reader), {}
        for name, value in objective.compute_terms(batch).items():
            objective.modules.zero_grad(set_to_none=True)
            value.backward(retain_graph=True)
            found[name] = value.detach(), gradient_of(objective)
        return found

    return compute(exact.stored[0]), compute(exact.online[0])


@pytest.mark.parametrize("name", TERMS)
def test_a_term_teaches_offline_what_it_teaches_online(
    name: str, singly: tuple[Singly, Singly]
) -> None:
    (stored, stored_gradient), (online, live_gradient) = (found[name] for found in singly)
    assert stored.item() == online.item() != 0
    assert_same_gradient(stored_gradient, live_gradient)


def test_default_encodings_stay_near(
    tiny_job: Callable[[StoreConfig], Extraction],
    tiny_params: Params,
    build_store: Callable[[StoreConfig], Reader],
) -> None:
    """Float16 logits and uint8 features move a term by under 1e-3 of itself plus 1e-4 nats.

    What they can move it by at worst is derived, and held, in test_encoding_bounds.py.
    """
    run = run_with(tiny_params, method="cirkd")
    settings = tiny_params.store.model_copy(update={"forward_batch": 1})
    ways = both_ways(build_store(settings), tiny_job(settings), 4)
    stored, stored_gradient = losses_and_gradient(run, ways.reader, ways.stored)
    online, live_gradient = losses_and_gradient(run, ways.reader, ways.online)
    for one, other in zip(stored, online, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert stored != online
    flat = [torch.cat([x.flatten() for x in g.values()]) for g in (stored_gradient, live_gradient)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.9999
