"""Many workers write what one writes."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from distributed import Client, LocalCluster

from pipeline.config.params import Params, StoreConfig
from pipeline.extraction import cluster
from pipeline.extraction.cluster import ClusterError, Task, extract_parallel, open_client
from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction
from store.errors import StoreLockedError, StoreWriteError
from store.journal import read_journal
from store.layout import LocalFiles
from store.verify import verify
from store.writer import Writer, write_unit


@dataclass(frozen=True, eq=False)
class Given:
    """An extraction that needs no files."""

    job: Extraction

    def load(self) -> Extraction:
        return self.job

    def dealt_to(self, worker: object) -> Self:
        assert isinstance(worker, int)  # which takes the GPUs in turn
        return self


class Missing:
    def load(self) -> Extraction:
        raise FileNotFoundError("teacher.pt")

    def dealt_to(self, worker: object) -> Self:
        return self


@pytest.fixture
def settings(tiny_params: Params) -> StoreConfig:
    return tiny_params.store.model_copy(update={"num_views": 4})


@contextmanager
def threads(num_workers: int) -> Iterator[Client]:
    """A cluster of threads: the same scheduler, without the seconds that processes take."""
    options = {"processes": False, "dashboard_address": None, "silence_logs": 50}
    with (
        LocalCluster(n_workers=num_workers, threads_per_worker=1, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def client() -> Iterator[Client]:
    with threads(3) as client:
        yield client


@pytest.fixture
def lonely_client() -> Iterator[Client]:
    """No worker is connected."""
    with threads(0) as client:
        yield client


def listening() -> set[tuple[str, int]]:
    """The addresses that this process and its children listen at."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [one for process in processes for one in process.net_connections()]
    return {tuple(one.laddr) for one in connections if one.status == psutil.CONN_LISTEN}


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
    seen: list[int] = []
    with Writer.open(tmp_path / "store", job.spec) as writer:
        assert not extract_parallel(client, Given(job), writer, seen.append, lambda: not seen)
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


def test_an_interruption_does_not_wait_for_workers(
    lonely_client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
) -> None:
    job, answers = tiny_job(settings), iter([True, True, True])
    with Writer.open(tmp_path / "store", job.spec) as writer:
        assert not extract_parallel(
            lonely_client, Given(job), writer, keep_going=lambda: next(answers, False)
        )


def test_without_workers_it_ends(
    lonely_client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "WITHOUT_WORKERS_S", 0)
    job = tiny_job(settings)
    with (
        Writer.open(tmp_path / "store", job.spec) as writer,
        pytest.raises(ClusterError, match="no worker"),
    ):
        extract_parallel(lonely_client, Given(job), writer)


def test_what_the_coordinator_cannot_see_is_not_committed(
    client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker's disk may hold a copy of the store at the same path."""
    job, copy = tiny_job(settings), tmp_path / "copy"
    with Writer.open(tmp_path / "store", job.spec) as writer:
        shutil.copytree(writer.path, copy)
        monkeypatch.setattr(cluster, "write_unit", lambda path, *rest: write_unit(copy, *rest))
        with pytest.raises(StoreWriteError, match="found: no file"):
            extract_parallel(client, Given(job), writer)
    assert not read_journal(LocalFiles(tmp_path / "store")).units


def test_a_worker_writes_for_the_present_run_alone(
    client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
) -> None:
    """One that is late finds the store finished, or another run at it."""
    job, path = tiny_job(settings), tmp_path / "store"
    with Writer.open(path, job.spec) as writer:
        assert extract_parallel(client, Given(job), writer)
        late = Task(Given(job), job.spec.fingerprint, path, writer.token)
        client.submit(cluster._write, late, 0, pure=False).result()
        others = replace(late, token="another run's")
        with pytest.raises(StoreLockedError, match="does not hold the lock"):
            client.submit(cluster._write, others, 0, pure=False).result()
    before = {file: file.stat().st_mtime_ns for file in path.rglob("c.*")}
    with pytest.raises(StoreLockedError, match="does not hold the lock"):
        client.submit(cluster._write, late, 0, pure=False).result()
    with Writer.open(path, job.spec), pytest.raises(StoreLockedError):
        client.submit(cluster._write, late, 0, pure=False).result()
    assert {file: file.stat().st_mtime_ns for file in path.rglob("c.*")} == before


def test_what_killed_workers_left_is_no_fault_of_the_store(
    client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
) -> None:
    job, path = tiny_job(settings), tmp_path / "store"
    with Writer.open(path, job.spec) as writer:
        (path / "logits" / "c.0.0.0.0.123-456.partial").write_bytes(b"torn")
        assert extract_parallel(client, Given(job), writer)
        writer.finish()
    assert verify(path) == []


def test_workers_of_other_versions_are_refused(
    client: Client,
    tiny_job: Callable[[StoreConfig], Extraction],
    settings: StoreConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = client.get_versions

    def answer(packages: list[str]) -> dict[str, Any]:
        found = ask(packages=packages)
        workers = {
            address: {"packages": {**worker["packages"], "torch": "1.0", "offline-cirkd": None}}
            for address, worker in found["workers"].items()
        }
        return {**found, "workers": workers}

    monkeypatch.setattr(client, "get_versions", answer)
    job = tiny_job(settings)
    with (
        Writer.open(tmp_path / "store", job.spec) as writer,
        pytest.raises(ClusterError, match=r"has offline-cirkd None; .* has torch 1\.0") as refused,
    ):
        extract_parallel(client, Given(job), writer)
    assert "expected offline-cirkd" in str(refused.value)
    assert len(writer.missing_units()) == job.spec.num_units


def test_nothing_listens_beyond_this_machine() -> None:
    before = listening()
    with open_client(1, None) as client:
        client.wait_for_workers(1)
        hosts = {host for host, _ in listening() - before}
    assert hosts == {"127.0.0.1"}


def test_an_address_without_a_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for address, found in [
            ("tcp://127.0.0.1:1", "Timed out"),
            (f"tcp://127.0.0.1:{port}", "another service"),
            ("nowhere://", "unknown address scheme"),
        ]:
            with (
                pytest.raises(ClusterError, match=f"answers at {address}: {found}"),
                open_client(1, address),
            ):
                pass
