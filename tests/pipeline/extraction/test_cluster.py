"""Many workers write what one writes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from pipeline.config.params import Params, StoreConfig
from pipeline.extraction.cluster import extract_parallel
from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction
from store.writer import Writer


@dataclass(frozen=True, eq=False)
class Given:
    """An extraction that needs no files."""

    job: Extraction

    def load(self) -> Extraction:
        return self.job


class Missing:
    def load(self) -> Extraction:
        raise FileNotFoundError("teacher.pt")


@pytest.fixture
def settings(tiny_params: Params) -> StoreConfig:
    return tiny_params.store.model_copy(update={"num_views": 4})


@pytest.fixture
def client() -> Iterator[Client]:
    """A cluster of threads: the same scheduler, without the seconds that processes take."""
    options = {"processes": False, "dashboard_address": None, "silence_logs": 50}
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_three_workers_write_the_bytes_of_one(
    client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
) -> None:
    job = tiny_job(settings)
    with Writer.open(tmp_path / "one", job.spec) as writer:
        extract(job, writer)
        one = writer.finish()
    seen: list[int] = []
    with Writer.open(tmp_path / "three", job.spec) as writer:
        assert extract_parallel(client, Given(job), writer, seen.append)
        assert writer.finish().digest == one.digest
    assert sum(seen) == job.spec.num_records


def test_an_interruption_keeps_what_is_done(
    client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
) -> None:
    job = tiny_job(settings.model_copy(update={"num_views": 12, "unit_size": 2}))
    with Writer.open(tmp_path / "store", job.spec) as writer:
        assert not extract_parallel(client, Given(job), writer, keep_going=lambda: False)
        left = len(writer.missing_units())
        assert 0 < left < job.spec.num_units
    with Writer.open(tmp_path / "store", job.spec) as writer:
        assert len(writer.missing_units()) == left
        assert extract_parallel(client, Given(job), writer)


def test_a_unit_that_fails_fails_the_extraction(
    client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
) -> None:
    job = tiny_job(settings)
    with (
        Writer.open(tmp_path / "store", job.spec) as writer,
        pytest.raises(FileNotFoundError, match=r"teacher\.pt"),
    ):
        extract_parallel(client, Missing(), writer)
