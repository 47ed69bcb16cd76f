"""No step waits for the GPU, none mixes devices, and what compiles does so whole: without a GPU."""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, fake_cuda, to_cuda
from tiny_networks import TinyTeacher
from torch import Tensor
from torch._dynamo.exc import Unsupported
from torch._dynamo.utils import counters

from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.methods import TERMS
from pipeline.config.params import Encodings, Params, StudentConfig
from pipeline.datasets.index import Index
from pipeline.distillation.components import MEMORIES
from pipeline.distillation.objective import Objective
from pipeline.evaluation.inference import Inference, predict_classes
from pipeline.extraction.job import Extraction
from pipeline.extraction.targets import compute_targets, forward_teacher
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, decode_batch, stream, stream_arrays
from pipeline.models.network import build_network, compile_network
from store.arrays import TARGETS
from store.reader import Reader

CPU = torch.device("cpu")
PRECISIONS = ("float32", "bfloat16", "float16")
PLANTED: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "list": lambda x: x.tolist(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.to("cpu").numpy(),
    "index on the host": lambda x: x[torch.tensor([0])],
    "tensor of the host": lambda x: x + torch.ones(3),
}
SIMILARITY_KL = "the similarity KL, a custom autograd.Function, is left out of torch.compile"
DRAWN = f"{SIMILARITY_KL}; the memory draws from a torch.Generator"
# Term -> why torch.compile cannot take it as one graph.
BREAKS = {
    "minibatch_pixel": SIMILARITY_KL,
    "channel_minibatch": SIMILARITY_KL,
    "memory_pixel": DRAWN,
    "memory_region": DRAWN,
    "channel_memory": DRAWN,
    "skd_holistic": "the discriminator takes a step of its own: a backward pass, an optimizer",
}
if sys.version_info < (3, 12):
    BREAKS["channel_mse"] = "functools.cached_property (Step.channels) takes a lock"
# Networks that are traced in seconds, at least one of every builder.
QUICK = {"deeplabv3_resnet18", "segformer_mit_b0"}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_seen(name: str) -> None:
    with fake_cuda(), pytest.raises((RuntimeError, TypeError)):
        PLANTED[name](torch.ones(3, device=CUDA))


def objective_on(reader: Reader, params: Params, term: str, precision: str) -> Objective:
    changes = {"architecture": "tiny", "method": None, "terms": {term: 1.0}}
    raw = params.students["r18_ce"].model_dump() | changes
    raw["training"]["precision"] = precision
    config = StudentConfig.model_validate(raw)
    student = build_network(config.architecture, reader.spec.num_classes).train()
    objective = Objective(student, reader.spec, config, CPU)
    objective.fill(reader)
    return objective


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    student = Architecture("Tiny", "tiny_networks:tiny_student", "")
    monkeypatch.setitem(ARCHITECTURES, "tiny", student)


@pytest.fixture
def batch(tiny_store: Reader) -> Batch:
    (batch,) = stream(tiny_store, LoaderConfig(0, 2), range(1), CPU)
    return batch


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_computed_without_a_look_at_values(
    term: str,
    precision: str,
    tiny_store: Reader,
    tiny_params: Params,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = objective_on(tiny_store, tiny_params, term, precision)
    if term == "skd_holistic":  # its discriminator takes a step of its own
        monkeypatch.setattr(torch.autograd, "backward", lambda loss: None)
    with fake_cuda():
        values = to_cuda(objective).compute_terms(to_cuda(batch))
        assert values[term].device == CUDA


@pytest.mark.parametrize("memory", ["queue", "bank"])
def test_memories_draw_and_move_on(
    memory: str, tiny_store: Reader, tiny_params: Params, batch: Batch, tmp_path: Path
) -> None:
    settings = tiny_params.distillation.model_copy(update={"memory": memory})
    contrasts = MEMORIES[memory](tiny_store.spec, settings, 0, CPU)
    contrasts.fill(tiny_store, banks=tmp_path)
    with (
        fake_cuda(),
        # Pinning asks for a real GPU.
        patch.object(Tensor, "pin_memory", lambda self: self),
    ):
        to_cuda(contrasts)
        to_cuda(batch)
        for kind in ("pixel", "region"):
            assert contrasts.sample(kind, batch).embeddings.device == CUDA
        contrasts.push(batch)


@pytest.mark.parametrize("encoding", ["uint8_per_pixel", "top_3", "float16"])
def test_batches_are_decoded_where_they_lie(
    encoding: str, build_store: Callable[..., Reader], tiny_params: Params
) -> None:
    encodings = {"logits": "float16", "features": "uint8_per_pixel"}
    encodings["features" if encoding.startswith("uint8") else "logits"] = encoding
    store = build_store(tiny_params.store.model_copy(update={"encodings": Encodings(**encodings)}))
    names = stream_arrays(store.spec, TARGETS)
    raw = {name: torch.from_numpy(array) for name, array in store.read([0, 1], names).items()}
    grid = torch.zeros(2, store.spec.feature_height, store.spec.feature_width, dtype=torch.uint8)
    raw |= {"record": torch.arange(2), "grid_labels": grid, "grid_valid": grid.bool()}
    with fake_cuda():
        decoded = decode_batch(store, to_cuda(raw), TARGETS)
        assert decoded.targets is not None
        assert decoded.targets.logits.shape == (2, store.spec.num_classes, *grid.shape[1:])
        assert decoded.targets.features.device == CUDA


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_teacher_computes_targets(
    precision: str, tiny_job: Callable[..., Extraction], tiny_index: Index, tiny_params: Params
) -> None:
    settings = tiny_params.store.model_copy(update={"precision": precision})
    spec = tiny_job(settings).spec
    teacher = TinyTeacher(spec.num_classes)
    images = np.zeros((3, 3, spec.height, spec.width), np.uint8)
    grid = torch.zeros(3, spec.feature_height, spec.feature_width, dtype=torch.uint8)
    with fake_cuda(), torch.no_grad():
        job = Extraction(tiny_index, to_cuda(teacher), settings, spec, CUDA)
        outputs = forward_teacher(job, images)
        made = compute_targets(outputs, to_cuda(grid), to_cuda(grid.bool()))
        assert {array.device for array in made.values()} == {CUDA}


@pytest.mark.parametrize("options", [{}, {"scales": (0.5, 1.0), "flip": True, "window": 16}])
def test_images_are_predicted(options: dict[str, Any], tiny_store: Reader) -> None:
    student = build_network("deeplabv3_resnet18", tiny_store.spec.num_classes).eval()
    with fake_cuda():
        image = torch.zeros(2, 3, 40, 56, dtype=torch.uint8, device=CUDA)
        classes = predict_classes(to_cuda(student), image, Inference(**options))
        assert (classes.shape, classes.device) == ((2, 40, 56), CUDA)


@pytest.fixture
def _compiling() -> Iterator[None]:
    """Let no test see what another compiled."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_compiling")
@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] * (x not in QUICK)) for x in ARCHITECTURES]
)
def test_a_student_compiles_into_one_graph(name: str) -> None:
    network = build_network(name, 5).train()
    with fake_cuda(compiling=True):
        compile_network(to_cuda(network), "eager")
        assert network(torch.zeros(2, 3, 64, 64, device=CUDA)).logits.device == CUDA
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


# The project compiles students alone, whose images are normalised before.
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.usefixtures("_tiny", "_compiling")
@pytest.mark.parametrize("term", TERMS)
def test_a_term_compiles_into_one_graph_with_its_student_or_is_named(
    term: str, tiny_store: Reader, tiny_params: Params, batch: Batch
) -> None:
    objective = objective_on(tiny_store, tiny_params, term, "float32")
    compute = torch.compile(objective.compute_terms, backend="eager", fullgraph=True)
    with fake_cuda(compiling=True):
        to_cuda(objective), to_cuda(batch)
        with pytest.raises(Unsupported) if term in BREAKS else nullcontext():
            assert compute(batch)[term].device == CUDA
