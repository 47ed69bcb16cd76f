"""The objective: every term by name, weighted as the method says, on a real batch of a store."""

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import nn

from pipeline.config.augment import WHOLE, Augment
from pipeline.config.methods import METHODS, TERMS
from pipeline.config.params import DistillationConfig, Params, StudentConfig
from pipeline.distillation.components import CWD_ADAPTER, MEMORIES, Components, Setup
from pipeline.distillation.objective import Objective
from pipeline.distillation.terms import COMPUTATIONS
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.losses.cwd import cwd
from pipeline.models.network import build_network
from pipeline.models.smp_networks import DILATED
from pipeline.runtime.distributed import Ranks
from pipeline.runtime.rng import seed_torch
from store.arrays import TARGETS, batch_arrays
from store.reader import Reader

CPU = torch.device("cpu")


@pytest.fixture
def batch(tiny_store: Reader) -> Batch:
    return next(stream(tiny_store, LoaderConfig(0, 2), range(1), CPU))


def objective_of(store: Reader, run: StudentConfig) -> Objective:
    seed_torch(0, "test")
    student = build_network(run.architecture, store.spec.num_classes).train()
    objective = Objective(student, store.spec, run, CPU)
    objective.fill(store)
    return objective


def run_with(tiny_params: Params, **update: object) -> StudentConfig:
    raw = tiny_params.students["r18_ce"].model_dump() | update
    return StudentConfig.model_validate(raw)


def test_every_term_is_computed_and_needs_what_a_store_may_hold() -> None:
    assert list(COMPUTATIONS) == list(TERMS)
    assert {term for weights in METHODS.values() for term in weights} <= set(TERMS)
    assert {need for term in TERMS.values() for need in term.needs} == set(TARGETS)


def test_every_memory_of_the_settings_can_be_built() -> None:
    field = DistillationConfig.model_fields["memory"]
    assert get_args(field.annotation) == tuple(MEMORIES)


def test_the_passes_of_a_step_share_its_random_rows(
    tiny_store: Reader, tiny_params: Params
) -> None:
    run = tiny_params.students["r18_cirkd"]
    training = run.training.model_copy(update={"batch_size": 8, "accumulate": 2})
    settings = run.distillation.model_copy(update={"minibatch_anchors": 10})
    run = run.model_copy(update={"training": training, "distillation": settings})
    student = build_network(run.architecture, tiny_store.spec.num_classes)
    shared = Objective(student, tiny_store.spec, run, CPU, Ranks(0, 2))
    assert shared.settings.minibatch_anchors == 3
    assert shared.settings.memory_anchors is None


@pytest.mark.parametrize("architecture", ["segformer_mit_b0", "smp:deeplabv3/resnet18"])
def test_students_of_other_strides_learn_every_term(
    architecture: str, tiny_store: Reader, tiny_params: Params, batch: Batch, monkeypatch: Any
) -> None:
    """Of stride 4 and, the encoder dilated less, 16 over a store of stride 8."""
    monkeypatch.setitem(DILATED, "deeplabv3", {"encoder_output_stride": 16})
    run = run_with(
        tiny_params, architecture=architecture, method=None, terms=dict.fromkeys(TERMS, 1.0)
    )
    objective = objective_of(tiny_store, run)
    assert objective.modules["student"].stride in (4, 16)
    values = objective.compute_terms(batch)
    assert all(torch.isfinite(values[name]) and values[name].requires_grad for name in TERMS)
    torch.stack([values[name] for name in TERMS]).sum().backward()
    gradients = [p.grad for p in objective.modules["student"].encoder.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_a_stride_that_does_not_divide_the_records_is_refused(
    tiny_store: Reader, tiny_params: Params
) -> None:
    student = build_network("deeplabv3_resnet18", tiny_store.spec.num_classes)
    student.stride = 64
    with pytest.raises(ValueError, match=r"output stride 64; expected records, .* found 32 x 32"):
        Objective(student, tiny_store.spec, tiny_params.students["r18_ce"], CPU)


@pytest.mark.parametrize(("stride", "side"), [(16, 24), (32, 16)])
def test_crops_that_a_stores_stride_does_not_divide_are_refused(
    stride: int, side: int, tiny_store: Reader, tiny_params: Params
) -> None:
    student = build_network("deeplabv3_resnet18", tiny_store.spec.num_classes)
    cells = {"feature_height": 32 // stride, "feature_width": 32 // stride}
    spec = replace(tiny_store.spec, stride=stride, **cells)
    run = tiny_params.students["r18_ce"]
    augment = run.training.augment.model_copy(update={"crop_height": side})
    training = run.training.model_copy(update={"augment": augment})
    whole = run.training.model_copy(update={"augment": WHOLE})
    Objective(student, spec, run.model_copy(update={"training": whole}), CPU)
    with pytest.raises(ValueError, match=rf"the store has output stride {stride}; expected"):
        Objective(student, spec, run.model_copy(update={"training": training}), CPU)


@pytest.mark.parametrize("name", TERMS)
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
    for component, module in objective.modules.items():
        if component != "student":
            assert all(p.grad is not None for p in module.parameters())
    beside = {*objective.modules, *objective.parts} - {"student", "anchors"}
    assert beside == {component.name for component in COMPUTATIONS[name].components}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_reads_what_it_needs_and_nothing_else(
    name: str, tiny_store: Reader, tiny_params: Params
) -> None:
    objective = objective_of(tiny_store, run_with(tiny_params, method=None, terms={name: 1.0}))
    config = LoaderConfig(0, 2, needs=objective.needs)
    batch = next(stream(tiny_store, config, range(1), CPU))
    assert batch.targets is not None
    expected = {array for need in TERMS[name].needs for array in batch_arrays(need)}
    assert set(batch.targets.arrays) == expected
    assert torch.isfinite(objective.compute_terms(batch)[name])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_its_terms(
    method: str, tiny_store: Reader, tiny_params: Params, batch: Batch
) -> None:
    objective = objective_of(tiny_store, run_with(tiny_params, method=method))
    expected = {"task": 1.0, "auxiliary": 0.4, **METHODS[method]}
    assert objective.weights == expected
    assert set(objective.compute_terms(batch)) == set(expected)
    assert bool(objective.needs) == (method != "ce")


def test_every_term_of_no_fixed_size_teaches_from_cropped_records(
    tiny_store: Reader, tiny_params: Params
) -> None:
    names = [name for name, term in TERMS.items() if not term.whole_records]
    run = run_with(tiny_params, method=None, terms=dict.fromkeys(names, 1.0))
    objective = objective_of(tiny_store, run)
    cut = Augment(flip_probability=0.5, crop_height=16, crop_width=24)
    for batch in stream(tiny_store, LoaderConfig(0, 2, augment=cut), range(2), CPU):
        assert batch.image.shape[-2:] == (16, 24)
        values = objective.compute_terms(batch)
        assert all(torch.isfinite(value) for value in values.values())
        torch.stack(list(values.values())).sum().backward()
    gradients = [p.grad for p in objective.modules.parameters()]
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_logits_stand_for_the_auxiliary_head_that_a_student_lacks(
    tiny_store: Reader, tiny_params: Params
) -> None:
    """The paper has DSD for MobileNetV2; its public code puts the logits in that place."""
    run = run_with(tiny_params, architecture="deeplabv3_mobilenet_v2", method="dsd")
    objective = objective_of(tiny_store, run)
    (batch,) = stream(tiny_store, LoaderConfig(0, 2), range(1), CPU)
    assert 0 < objective.compute_terms(batch)["dsd_psd"].item() < 1


@pytest.mark.parametrize("queue", ["pixel", "region"])
def test_more_contrast_than_a_queue_holds_is_refused_at_the_start(
    queue: str, tiny_store: Reader, tiny_params: Params
) -> None:
    settings = tiny_params.distillation.model_dump() | {f"{queue}_contrast": 10_000}
    run = run_with(tiny_params, method="cirkd", distillation=settings)
    with pytest.raises(ValueError, match=f"distillation.{queue}_contrast draws 1251 per class"):
        objective_of(tiny_store, run)


def test_a_discriminator_learns_and_is_saved(
    tiny_store: Reader, tiny_params: Params, batch: Batch
) -> None:
    objective = objective_of(tiny_store, run_with(tiny_params, method="skd"))
    discriminator = objective.parts["discriminator"]
    before = {name: x.clone() for name, x in discriminator.state_dict()["critic"].items()}
    objective.compute_terms(batch)
    after = discriminator.state_dict()["critic"]
    assert any(not torch.equal(before[name], after[name]) for name in before)
    again = objective_of(tiny_store, run_with(tiny_params, method="skd")).parts["discriminator"]
    again.load_state_dict(discriminator.state_dict())
    assert all(torch.equal(again.state_dict()["critic"][n], x) for n, x in after.items())


def test_cirkd_has_the_papers_weights() -> None:
    expected = {"kd": 1.0, "minibatch_pixel": 1.0, "memory_pixel": 0.1, "memory_region": 0.1}
    assert METHODS["cirkd"] == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bfloat16_stays_near_float32(
    precision: str, tiny_store: Reader, tiny_params: Params, batch: Batch
) -> None:
    training = tiny_params.training.model_dump() | {"precision": precision}
    run = run_with(tiny_params, method="cirkd", training=training)
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


@pytest.mark.parametrize(("channels", "kind"), [(256, nn.Identity), (64, nn.Conv2d)])
def test_cwd_compares_maps_of_equal_channels_as_they_are(
    channels: int, kind: type[nn.Module], tiny_store: Reader, tiny_params: Params
) -> None:
    """A convolution in between would let a student that equals its teacher have a loss."""
    setup = Setup(channels, tiny_store.spec, tiny_params.students["r18_ce"], CPU)
    adapter = Components([CWD_ADAPTER], setup)[CWD_ADAPTER]
    assert isinstance(adapter, kind)
    features = torch.randn(2, channels, 4, 4)
    teacher = features if kind is nn.Identity else adapter(features).detach()
    value = cwd(adapter(features), teacher, torch.ones(2, 4, 4, dtype=torch.bool)).value
    assert value.abs() < 1e-6
