"""The objective: every term by name, weighted as the method says, on a real batch of a store."""

import pytest
import torch

from pipeline import methods, terms
from pipeline.objective import Objective
from pipeline.params import Params, Student
from pipeline.randomness import seed_torch
from pipeline.stream import Batch, stream
from pipeline.students import build_student
from store.reader import Reader

CPU = torch.device("cpu")


@pytest.fixture
def batch(tiny_store: Reader) -> Batch:
    return next(stream(tiny_store, seed=0, batch_size=2, steps=range(1), device=CPU))


def objective_of(store: Reader, run: Student) -> Objective:
    seed_torch(0, "test")
    student = build_student(run.architecture, store.spec.num_classes).train()
    objective = Objective(student, store.spec, run, CPU)
    if objective.memory is not None:
        objective.memory.fill(store)
    return objective


def run_with(tiny_params: Params, **update: object) -> Student:
    raw = tiny_params.students["r18_ce"].model_dump() | update
    return Student.model_validate(raw)


def test_params_and_terms_know_the_same_names() -> None:
    assert set(terms.TERMS) == methods.TERMS
    modules = {term.module for term in terms.TERMS.values() if term.module is not None}
    assert modules == set(terms.BESIDE)


@pytest.mark.parametrize("name", terms.TERMS)
def test_every_term_teaches_the_student_and_what_learns_beside_it(
    name: str, tiny_store: Reader, tiny_params: Params, batch: Batch
) -> None:
    objective = objective_of(tiny_store, run_with(tiny_params, method=None, terms={name: 1.0}))
    values = objective.compute_terms(batch)
    assert set(values) == {"task", "auxiliary", name}
    assert torch.isfinite(values[name])
    values[name].backward()
    student = objective.modules["student"]
    assert student.encoder.conv1.weight.grad.abs().sum() > 0
    for module in objective.modules["beside"].values():
        assert all(p.grad is not None for p in module.parameters())
    assert (len(objective.modules["beside"]) > 0) == (terms.TERMS[name].module is not None)


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_method_is_its_terms(
    method: str, tiny_store: Reader, tiny_params: Params, batch: Batch
) -> None:
    objective = objective_of(tiny_store, run_with(tiny_params, method=method))
    expected = {"task": 1.0, "auxiliary": 0.4, **methods.METHODS[method]}
    assert objective.weights == expected
    assert set(objective.compute_terms(batch)) == set(expected)
    assert objective.needs_targets == (method != "ce")


def test_cirkd_has_the_papers_weights() -> None:
    expected = {"kd": 1.0, "minibatch_pixel": 1.0, "memory_pixel": 0.1, "memory_region": 0.1}
    assert methods.METHODS["cirkd"] == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bfloat16_stays_near_float32(
    precision: str, tiny_store: Reader, tiny_params: Params, batch: Batch
) -> None:
    recipe = tiny_params.training.model_dump() | {"precision": precision}
    run = run_with(tiny_params, method="cirkd", training=recipe)
    values = objective_of(tiny_store, run).compute_terms(batch)
    exact = objective_of(tiny_store, run_with(tiny_params, method="cirkd")).compute_terms(batch)
    for name, value in exact.items():
        assert values[name].dtype == torch.float32
        assert values[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.02)


def test_anchors_can_be_a_subset(tiny_store: Reader, tiny_params: Params, batch: Batch) -> None:
    settings = tiny_params.distillation.model_dump()
    some = settings | {"minibatch_anchors": 8, "memory_anchors": 8}
    whole = objective_of(tiny_store, run_with(tiny_params, method="cirkd")).compute_terms(batch)
    part = objective_of(
        tiny_store, run_with(tiny_params, method="cirkd", distillation=some)
    ).compute_terms(batch)
    assert part["kd"] == whole["kd"]
    assert part["minibatch_pixel"] != whole["minibatch_pixel"]
    assert part["minibatch_pixel"].item() == pytest.approx(whole["minibatch_pixel"].item(), rel=0.5)
