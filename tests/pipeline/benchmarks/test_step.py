"""The benchmark of a step: both ways compute the same terms, and every figure is there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.benchmarks import random_store, step, variants
from pipeline.benchmarks.floor import network_flops, relational_flops
from pipeline.benchmarks.online import query_teacher
from pipeline.benchmarks.sizes import CPU as CPU_SIZES
from pipeline.benchmarks.sizes import Sizes, cirkd_run, random_job
from pipeline.benchmarks.trainer import build_objective
from pipeline.extraction.job import Extraction
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.memory.queue_memory import QueueMemory
from pipeline.models.network import Network, Output
from store.reader import Reader, open_store

CPU = torch.device("cpu")
SMALL = Sizes(
    height=32,
    width=64,
    batch_size=2,
    precisions=("float32",),
    anchors_per_image=None,
    threads=1,
    num_classes=3,
    num_records=4,
    pixel_queue=100,
    region_queue=60,
    pixel_contrast=24,
    region_contrast=12,
    matrix_side=64,
)
RUN = cirkd_run(SMALL, "deeplabv3_resnet18", "float32")


@pytest.fixture(scope="module")
def job() -> Extraction:
    return random_job(SMALL, "float32", CPU)


@pytest.fixture(scope="module")
def reader(job: Extraction, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    path = tmp_path_factory.mktemp("random") / "store"
    random_store.write_random_store(job, path)
    return open_store(path)


def test_every_slot_is_filled_and_the_stores_come_last(reader: Reader) -> None:
    objective = build_objective(RUN, reader.spec, CPU)
    random_store.fill_queues(RUN, CPU, objective, reader)
    memory = objective.parts["memory"]
    assert isinstance(memory, QueueMemory)
    samples = np.bincount(reader.column("pixel_sample_class").ravel(), minlength=256)[:3]
    for kind, capacity, own in (("pixels", 100, samples), ("regions", 60, [len(reader)] * 3)):
        state = memory.state_dict()[kind]
        assert (state["num_pushed"] >= capacity).all()
        lengths = torch.linalg.vector_norm(state["embeddings"].float(), dim=1)
        torch.testing.assert_close(lengths, torch.ones(3 * capacity), rtol=1e-3, atol=0)
        stored = state["records"].view(3, capacity) < len(reader)
        assert stored.sum(1).tolist() == list(own)


def test_the_public_code_computes_the_same_terms_and_gradient(
    reader: Reader, job: Extraction
) -> None:
    """Where nothing is padding, void, or in the queue already."""
    batch = next(stream(reader, LoaderConfig(0, 2, needs=()), range(1), CPU))
    found = []
    for public in (False, True):
        objective = build_objective(RUN, reader.spec, CPU)
        compute = variants.public_terms(objective, RUN, CPU) if public else objective.compute_terms
        memory = objective.parts["memory"]
        assert isinstance(memory, QueueMemory)
        for entries in random_store._random_batches(RUN, reader.spec, CPU):
            memory.push(entries)
        terms = compute(query_teacher(job, batch))
        torch.stack(
            [objective.weights[name] * value for name, value in terms.items()]
        ).sum().backward()
        grads = [p.grad.flatten() for p in objective.modules.parameters() if p.grad is not None]
        found.append((terms, torch.cat(grads)))
    (ours, our_gradient), (theirs, their_gradient) = found
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-3, atol=1e-5)


def test_drawn_anchors_are_so_many_of_every_image() -> None:
    few = cirkd_run(Sizes(**{**vars(SMALL), "anchors_per_image": 5}), "pspnet_resnet18", "float32")
    assert few.distillation.minibatch_anchors == few.distillation.memory_anchors == 10
    generator = torch.Generator().manual_seed(0)
    rows = variants.draw_rows(torch.zeros(2, 32, 4), 10, generator)
    assert isinstance(rows, torch.Tensor)
    assert len(set(rows.tolist())) == 5


def test_contiguous_networks_see_contiguous_images() -> None:
    network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    variants.keep_contiguous(network)
    seen = []
    network.register_forward_pre_hook(lambda module, images: seen.append(images[0]))
    image = torch.zeros(1, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert network(image).is_contiguous()
    assert seen[0].is_contiguous()
    assert network.weight.is_contiguous()


def test_the_public_codes_memory_format_is_not_given_to_the_callers_teacher(
    reader: Reader, job: Extraction
) -> None:
    def state() -> dict[str, tuple[torch.Tensor, tuple[int, ...]]]:
        return {name: (x.clone(), x.stride()) for name, x in job.teacher.state_dict().items()}

    before = state()
    measured = variants.Setting(
        reader, RUN, lambda: job, lambda objective, reader: objective.fill(reader), CPU, 0
    )
    variants.finish_step(variants.public_code(measured))
    for name, (values, stride) in state().items():
        assert torch.equal(values, before[name][0]), name
        assert stride == before[name][1], name
    assert not job.teacher._forward_pre_hooks


def test_labels_alone_take_no_weights_of_cirkds_terms(reader: Reader, job: Extraction) -> None:
    config = RUN.model_copy(update={"terms": {"memory_pixel": 0.01}})
    measured = variants.Setting(reader, config, lambda: job, lambda *_: None, CPU, 0)
    assert next(variants.ce(measured)).terms.keys() == {"task", "auxiliary"}


def test_relational_flops_by_hand(reader: Reader) -> None:
    # A 4x8 grid, 2 images: 64 rows and columns; 27 + 15 embeddings of 256 channels in the queues.
    minibatch = 2 * 64 * 64 * (64 + 256) + 2 * 64 * 64 * 64 * 2
    assert relational_flops(SMALL, reader.spec, 64) == minibatch + 3 * 2 * 64 * (27 + 15) * 256
    spec = replace(reader.spec, height=256, width=512, feature_height=32, feature_width=64)
    assert relational_flops(CPU_SIZES, spec, 256) == 2 * 4096 * 256 * (4 * 4096 + 3 * (4104 + 1026))


@pytest.mark.parametrize("groups", [1, 3])
def test_network_flops_by_hand(groups: int) -> None:
    class Student(Network):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 6, 1, groups=groups)

        def forward(self, image: torch.Tensor) -> Output:
            features = self.layer(image)
            return Output(features, features, None)

    modules = torch.nn.ModuleDict({"student": Student(), "projector": torch.nn.Conv2d(6, 7, 1)})
    image = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    product = (
        2 * 2 * 64 * 3 * 6 // groups
    )  # the image gets no gradient: one product forward, one backward
    assert network_flops(modules, image) == (2 * product, 3 * 2 * 2 * 64 * 6 * 7)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_way_is_stepped(
    reader: Reader, job: Extraction, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "NUM_WAIT_STEPS", 1)
    measured = variants.Setting(
        reader, RUN, lambda: job, lambda objective, reader: objective.fill(reader), CPU, num_workers
    )
    seconds, wait = variants.step_medians(measured, num_rounds=1)
    assert seconds.keys() == variants.VARIANTS.keys()
    assert min(seconds.values()) > 0
    assert 0 < wait < 1


@pytest.mark.slow
def test_reports_every_promised_field(tmp_path: Path) -> None:
    chosen = list(step.STUDENTS)[-1:]
    found = list(step.benchmark(SMALL, CPU, tmp_path, students=chosen, num_workers=1, num_rounds=1))
    assert len(found) == len(chosen)
    assert found[-1]["results"].keys() == {f"{student} float32" for student in chosen}
    promised = {"offline_over_ce", "public_code_over_offline", "data_wait_fraction"}
    promised |= {f"{variant}_peak_bytes" for variant in ("ce", "offline", "public_code")}
    for figures in found[-1]["results"].values():
        assert promised < figures.keys()
        assert all(value > 0 for value in figures.values())
        assert figures["offline_over_ce_floor"] > 1
        # A live teacher's weights alone are 240 MB; what a process touches besides differs.
        assert figures["public_code_peak_bytes"] > figures["offline_peak_bytes"] + 100e6


@pytest.mark.slow
def test_every_variant_takes_a_step_in_a_subspace(tmp_path: Path) -> None:
    sizes = replace(SMALL, rank=8)
    random_store.write_random_store(random_job(sizes, "float32", CPU), tmp_path / "store")
    case = step.Case(sizes, CPU, tmp_path, "deeplabv3_resnet18", "float32")
    setting = case.setting(num_workers=0)
    assert setting.reader.spec.feature_channels == 8
    for take in variants.VARIANTS.values():
        variants.finish_step(take(setting))
