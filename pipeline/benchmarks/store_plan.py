"""What a store will cost, from a timed sample on this machine, before anything large runs."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from pipeline.benchmarks.trainer import build_objective, take_steps
from pipeline.config.params import StudentConfig
from pipeline.distillation.requirements import check_requirements
from pipeline.extraction.extract import build_unit, extract
from pipeline.extraction.job import Extraction
from pipeline.loading.memory_budget import fit_prefetch
from pipeline.loading.stream import LoaderConfig, stream, stream_arrays
from store.journal import read_journal
from store.layout import LocalFiles
from store.reader import Reader, open_store
from store.schema import array_specs
from store.writer import Writer

NUM_STEPS = 4


@dataclass(frozen=True)
class Plan:
    """Sizes and times of a store that does not exist yet, scaled up from a sample of its records.

    Attributes:
        num_records, num_files: of the whole store.
        raw_bytes: of each array, before encoding's codec.
        stored_bytes: of each array, as the sample compressed.
        extract_s: seconds the whole extraction takes at the sample's rate.
        step_s: median seconds of the student's training step; the read rate it needs follows.
        read_bytes_per_s: what one training process reads, at that step time.
        in_flight_bytes: the most host memory that one training's batches take on their way.
        free_bytes: on the disk the store would lie on.
    """

    num_records: int
    num_files: int
    raw_bytes: dict[str, int]
    stored_bytes: dict[str, int]
    extract_s: float
    step_s: float
    read_bytes_per_s: float
    in_flight_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        """Return whether the disk has room."""
        return sum(self.stored_bytes.values()) < self.free_bytes


def plan(
    job: Extraction, config: StudentConfig, folder: Path, num_workers: int, limit_bytes: int
) -> Plan:
    """Extract a few records into a temporary store, train a few steps on it, and scale up.

    Args:
        job: the whole extraction; the teacher's weights do not matter for times.
        config: the student whose read rate is asked for.
        folder: where the store would lie.
        num_workers: of the training.
        limit_bytes: of host memory for its batches.
    """
    spec = job.spec
    check_requirements(config, spec, "params.yaml")
    num_sample = min(spec.num_records, max(job.settings.forward_batch, config.training.batch_size))
    sample = replace(spec, num_images=num_sample, num_views=1, unit_size=num_sample)
    small = replace(job, spec=sample)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="plan-") as name:
        path = Path(name) / "store"
        # Once untimed: the first forward pass of a shape also chooses its kernels.
        build_unit(small, 0)
        with Writer.open(path, sample) as writer:
            start = time.perf_counter()
            extract(small, writer)
            seconds = time.perf_counter() - start
            writer.finish()
        (digest,) = read_journal(LocalFiles(path)).units.values()
        step_s, needs = _steps(open_store(path), config, job.device)
    batch_size, pinned = config.training.batch_size, job.device.type == "cuda"
    size = config.training.micro_batch_size()
    _, in_flight = fit_prefetch(spec, needs, size, num_workers, pinned, limit_bytes)
    read_bytes = sum(digest.num_bytes[name] for name in stream_arrays(spec, needs))
    scale = spec.num_records / num_sample
    specs = array_specs(spec)
    return Plan(
        num_records=spec.num_records,
        num_files=spec.num_units * len(specs) + len(specs) + 3,
        raw_bytes={array: one.record_bytes * spec.num_records for array, one in specs.items()},
        stored_bytes={array: round(size * scale) for array, size in digest.num_bytes.items()},
        extract_s=seconds * scale,
        step_s=step_s,
        read_bytes_per_s=read_bytes / num_sample * batch_size / step_s,
        in_flight_bytes=in_flight,
        free_bytes=shutil.disk_usage(folder).free,
    )


def _steps(
    reader: Reader, config: StudentConfig, device: torch.device
) -> tuple[float, tuple[str, ...]]:
    """Measure the median seconds of a training step, and name what it needs of each record."""
    training = config.training.model_copy(update={"steps": NUM_STEPS})
    # A pretrained encoder takes the same time as a fresh one, and may not be at hand.
    objective = build_objective(
        config.model_copy(update={"encoder_weights": "none"}), reader.spec, device
    )
    objective.fill(reader, banks=Path(reader.path).parent)
    loading = LoaderConfig.of_student(config, objective.needs)
    batches = stream(reader, loading, range(NUM_STEPS), device)
    times = []
    for result in take_steps(objective, training, batches):
        result.total.item()  # waits for the device
        times.append(time.perf_counter())
    return statistics.median(after - before for before, after in pairwise(times)), objective.needs
