"""Extraction by many workers: one task a unit; the coordinator alone writes the journal."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing.resource_tracker
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import dask.config
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker
from distributed.comm.core import CommClosedError, connect

from pipeline.extraction.extract import build_unit
from pipeline.extraction.job import Extraction
from pipeline.runtime.environment import PACKAGES
from store.journal import UnitDigest
from store.writer import Writer, write_unit

RETRIES = 3
CONNECT_S = 10
POLL_S = 0.2
GRACE_S = 3.0
"""How long an interruption waits for the units in hand."""
WITHOUT_WORKERS_S = 120.0


class ClusterError(ValueError):
    """Scheduler or workers are lost, or are not those that can do this extraction."""


class Files(Hashable, Protocol):
    """What an extraction is loaded from, as `JobFiles` are."""

    def load(self) -> Extraction:
        """Load it."""

    def dealt_to(self, worker: object) -> Files:
        """Return them with the device of a worker, by its name; those of `workers` are numbers."""


@dataclass(frozen=True)
class Task:
    """What a worker must know to write a unit.

    Attributes:
        files: what it loads the extraction from, once.
        fingerprint: of the store; another one means that the files changed.
        path: of the store.
        token: of the writer that the store is open in; after its end nothing is written.
    """

    files: Files
    fingerprint: str
    path: Path
    token: str


@contextmanager
def open_client(num_workers: int, scheduler: str | None) -> Iterator[Client]:
    """Connect to a scheduler, or to one of this process with workers of this machine.

    That one and its workers listen on the loopback interface alone; there is no dashboard.

    Args:
        num_workers: processes to start where no scheduler is given.
        scheduler: address of a running dask.distributed scheduler.

    Raises:
        ClusterError: nothing answers there.
    """
    with ExitStack() as stack:
        # What of dask's troubles ends an extraction is an error, told once.
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, logging.NOTSET)
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": CONNECT_S}))
        if scheduler is not None:
            asyncio.run(_reach(scheduler))
        address = scheduler or stack.enter_context(_start_cluster(num_workers))
        yield stack.enter_context(Client(address, set_as_default=False))  # type: ignore[no-untyped-call]


async def _reach(scheduler: str) -> None:
    """Refuse an address that does not answer as a scheduler does; `Client` may wait for ever."""
    try:
        comm = await asyncio.wait_for(connect(scheduler), 2 * CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no scheduler answers at {scheduler}: {str(error) or 'another service does'}; "
            "expected the address that `dask scheduler` printed"
        ) from error
    await comm.close()


def _start_cluster(num_workers: int) -> LocalCluster:
    """Start workers that no Ctrl-C reaches: the threads and processes below inherit the mask."""
    # Started later, it would lift the mask again in the thread that starts a worker.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=0,
            threads_per_worker=1,
            memory_limit=1 / num_workers,
            dashboard_address=None,
            # Of the status pages that are there all the same: a second cluster has other ports.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    cluster.scale(num_workers)  # type: ignore[no-untyped-call]
    return cluster


def extract_parallel(
    client: Client,
    files: Files,
    writer: Writer,
    progress: Callable[[int], None] = lambda records: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> bool:
    """Write every unit that is still missing with the workers of a dask cluster.

    A lost worker's units are given to others. The bytes do not depend on the number of workers:
    a forward batch never crosses a unit, and every worker uses the same number of threads.

    Args:
        client: of any dask.distributed cluster whose workers see the store's folder.
        files: what each worker loads the extraction from, once.
        writer: open on the store, here.
        progress: called with the number of records of each finished unit.
        keep_going: after False the units in hand have GRACE_S to be finished.

    Returns:
        Whether the store is complete.

    Raises:
        ClusterError: scheduler or workers are lost, or workers have other versions of packages.
        StoreWriteError: a worker has written to another disk.
        Exception: what a unit raised on a worker.
    """
    spec = writer.spec
    task = Task(files, spec.fingerprint, Path(writer.path).resolve(), writer.token)
    with _explain_losses():
        for digest in _write_units(client, task, writer.missing_units(), keep_going):
            writer.commit(digest)
            progress(len(spec.unit_records(digest.unit)))
    return not writer.missing_units()


def _write_units(
    client: Client, task: Task, units: Sequence[int], keep_going: Callable[[], bool]
) -> Iterator[UnitDigest]:
    """Have units written, two a thread at a time, and yield them as they are finished."""
    workers, left = _Workers(client), deque(units)
    in_hand: set[Future[UnitDigest]] = set()
    done: SimpleQueue[Future[UnitDigest]] = SimpleQueue()
    end = float("inf")
    while time.monotonic() < end and (in_hand or (left and keep_going())):
        num_threads = workers.count_threads()
        if not keep_going():
            end = min(end, time.monotonic() + GRACE_S)
        while left and len(in_hand) < 2 * num_threads and keep_going():
            future = client.submit(_write, task, left.popleft(), retries=RETRIES, pure=False)
            future.add_done_callback(done.put)  # type: ignore[no-untyped-call]
            in_hand.add(future)
        with suppress(Empty):
            future = done.get(timeout=POLL_S)
            try:
                digest: UnitDigest = future.result(timeout=POLL_S)
            except TimeoutError:
                if future.status == "error":
                    raise
                done.put(future)  # its worker died before it could be asked: it is written again
            else:
                in_hand.remove(future)
                yield digest


class _Workers:
    """The workers that are connected, each looked at once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: set[str] = set()
        self._seen_at = time.monotonic()

    def count_threads(self) -> int:
        """Count the threads of all workers; ClusterError for those of other versions, or none."""
        threads: dict[str, int] = self._client.nthreads()  # type: ignore[no-untyped-call]
        if not threads.keys() <= self._known:
            _refuse_other_versions(self._client)
        self._known |= threads.keys()
        now = time.monotonic()
        if threads:
            self._seen_at = now
        elif now - self._seen_at > WITHOUT_WORKERS_S:
            raise ClusterError(
                f"no worker has been connected for {WITHOUT_WORKERS_S:.0f} s; start workers, then "
                "the same command again"
            )
        return sum(threads.values())


def _refuse_other_versions(client: Client) -> None:
    packages = ["offline-cirkd", *PACKAGES]
    found: Any = client.get_versions(packages=packages)
    expected = found["client"]["packages"]
    findings = [
        f"{address} has {name} {versions['packages'][name]}"
        for address, versions in found["workers"].items()
        for name in packages
        if versions["packages"][name] != expected[name]
    ]
    if findings:
        names = ", ".join(f"{name} {expected[name]}" for name in packages)
        raise ClusterError(
            f"workers of other versions: {'; '.join(findings)}; expected {names}; install these "
            "there, or remove those workers"
        )


@contextmanager
def _explain_losses() -> Iterator[None]:
    """Turn dask's errors, which are traces of several connections, into one sentence."""
    again = "finished units are kept, the same command goes on"
    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"{error.allowed_failures + 1} workers died over one unit, often for want of memory: "
            f"use fewer workers a machine; {again}"
        ) from error
    except (CommClosedError, CancelledError) as error:
        raise ClusterError(f"the scheduler was lost; {again}") from error


def _write(task: Task, unit: int) -> UnitDigest:
    job = _load_once(task.files, task.fingerprint)
    torch.set_num_threads(job.settings.threads)
    return write_unit(task.path, job.spec, unit, build_unit(job, unit), task.token)


@lru_cache(maxsize=1)
def _load_once(files: Files, fingerprint: str) -> Extraction:
    """A worker may outlive a teacher: another fingerprint means that the files changed."""
    return files.dealt_to(get_worker().name).load()
