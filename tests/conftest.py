"""A tiny dataset, a tiny teacher, and stores made of them."""

import faulthandler
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tiny_networks import TinyTeacher
from torch import nn

from pipeline.config.params import Params, StoreConfig, load_params
from pipeline.datasets.index import Index
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset
from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction, plan_store
from store.manifest import Manifest
from store.reader import Reader, open_store
from store.writer import Writer

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")

# Autograd counts the devices in its first pass. Fake GPUs among them would give it threads, and
# then no process that is forked from here, as ranks are, could take a pass.
torch.ones(1, requires_grad=True).sum().backward()

# A law is not broken by a slow machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=50,
        help="how often slow tests kill a writer and disturb the stages (default 50; try 1000)",
    )


def pytest_configure() -> None:
    """Give one thread to every process that is started from here, pytest-xdist's included."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_unconfigure(config: pytest.Config) -> None:
    """A process that does not end after its summary says where it waits, and fails.

    One of pytest-xdist's waits rightly, for the others' last tests, and is ended by the first.
    """
    if not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(120, exit=True)


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """Begin every test alike, whatever ran before it in this process.

    Where a test says "bit for bit", that is on one device, with one thread, the same forward batch
    and the memory format that teacher and students fix: last bits depend on each of them.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_params() -> Params:
    return load_params(ROOT / "profiles/tiny.yaml")


@pytest.fixture(scope="session")
def tiny_index(tiny_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Index:
    pixels = tmp_path_factory.mktemp("pixels")
    fingerprint = fingerprint_dataset(tiny_params.dataset)["fingerprint"]
    return prepare_dataset(tiny_params.dataset, fingerprint, pixels)


@pytest.fixture(scope="session")
def tiny_teacher(tiny_index: Index) -> TinyTeacher:
    return TinyTeacher(tiny_index.num_classes)


@pytest.fixture(scope="session")
def tiny_job(tiny_index: Index, tiny_teacher: TinyTeacher) -> Callable[[StoreConfig], Extraction]:
    """The extraction that some store settings mean."""

    def build(settings: StoreConfig, teacher: nn.Module = tiny_teacher) -> Extraction:
        spec = plan_store(tiny_index, settings, tiny_teacher, "tiny teacher", CPU)
        return Extraction(tiny_index, teacher, settings, spec, CPU)

    return build


@pytest.fixture(scope="session")
def build_store(
    tiny_job: Callable[[StoreConfig], Extraction], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[StoreConfig], Reader]:
    """Extract a store with the given settings; the same settings give the same store object."""
    made: dict[StoreConfig, Reader] = {}

    def build(settings: StoreConfig) -> Reader:
        if settings not in made:
            path = tmp_path_factory.mktemp("stores") / "store"
            job = tiny_job(settings)
            with Writer.open(path, job.spec) as writer:
                assert extract(job, writer)
                writer.finish()
            made[settings] = open_store(path, expected=job.spec.fingerprint)
        return made[settings]

    return build


@pytest.fixture(scope="session")
def tiny_store(tiny_params: Params, build_store: Callable[[StoreConfig], Reader]) -> Reader:
    return build_store(tiny_params.store)


@pytest.fixture
def manifest(tiny_store: Reader, tmp_path: Path) -> Path:
    """A manifest of the tiny store, as extraction leaves it."""
    path = tmp_path / "manifest.json"
    Manifest.of(tiny_store.path, tiny_store.spec, tiny_store.journal).write(path)
    return path
