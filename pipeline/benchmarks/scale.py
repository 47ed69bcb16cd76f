"""What many workers and many units cost the one process that writes the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.benchmarks.peak import in_fresh_process
from pipeline.config.params import Crop, Encodings, StoreConfig
from pipeline.datasets.index import Index
from pipeline.datasets.prepare import fingerprint_dataset, prepare_dataset
from pipeline.datasets.scenes.dataset import Config as ScenesConfig
from pipeline.extraction.cluster import extract_parallel, open_client
from pipeline.extraction.job import Extraction, plan_store
from pipeline.models.network import Network, Output
from pipeline.runtime.environment import peak_memory_bytes
from store.journal import UnitDigest, append_entry
from store.layout import JOURNAL, unit_key
from store.schema import StoreSpec, array_specs
from store.writer import Writer

CPU = torch.device("cpu")
SIZE = 16
UNIT_SIZE = 4


class StandInTeacher(Network):
    """One convolution in the place of a teacher: its time does not hide the coordinator's."""

    architecture = "stand-in"
    stride = 8
    feature_channels = 4

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, self.feature_channels, self.stride, self.stride)
        self.classifier = nn.Conv2d(self.feature_channels, num_classes, 1)

    def forward(self, image: Tensor) -> Output:
        """Map images to the outputs of a teacher."""
        features = self.features(image).relu()
        logits = self.classifier(features)
        return Output(logits, features, logits)


@dataclass(frozen=True)
class StandInFiles:
    """An extraction of tiny views, in the place of `JobFiles`.

    Attributes:
        index: of a dataset of UNIT_SIZE images.
        num_units: of the store: a view of every image each.
    """

    index: Path
    num_units: int

    def dealt_to(self, worker: object) -> StandInFiles:
        """Return the same: the coordinator's time is measured, on a CPU."""
        return self

    def load(self) -> Extraction:
        """Plan the store, and build the teacher."""
        index = Index.read(self.index)
        teacher = StandInTeacher(index.num_classes).eval()
        settings = StoreConfig(
            name="scale",
            num_views=self.num_units,
            seed=0,
            crop=Crop(height=SIZE, width=SIZE, scale_min=1.0, scale_max=1.0, flip_probability=0.0),
            encodings=Encodings(logits="float16", features="uint8_per_pixel"),
            samples_per_class=1,
            unit_size=UNIT_SIZE,
            forward_batch=UNIT_SIZE,
            threads=1,
            precision="float32",
        )
        spec = plan_store(index, settings, teacher, "stand-in", CPU)
        return Extraction(index, teacher, settings, spec, CPU)


def benchmark(
    folder: Path,
    *,
    num_workers: Sequence[int] = (1, 8, 32),
    num_units: int = 400,
    num_resumed: int = 100_000,
) -> Iterator[dict[str, object]]:
    """Extract tiny units with more and more worker processes, then resume a large store.

    Args:
        folder: an empty one.
        num_workers: of each extraction.
        num_units: of each extraction.
        num_resumed: units of the store that is resumed.

    Yields:
        The figures so far. Of N workers: units_per_s; coordinator_ms, its processor time a unit,
        dask's scheduler included, which bounds units_per_s for any N; its peak_memory_bytes.
        Of the resume: seconds until the missing units are known; peak_memory_bytes; journal_bytes.
    """
    dataset = ScenesConfig(
        kind="scenes", name="scale", seed=0, num_train=UNIT_SIZE, num_val=1, height=SIZE, width=32
    )
    fingerprint = fingerprint_dataset(dataset)["fingerprint"]
    index = folder / "index.json"
    prepare_dataset(dataset, fingerprint, folder / "pixels").write(index)
    figures: dict[str, object] = {"num_units": num_units, "num_resumed": num_resumed}
    for count in num_workers:
        files, path = StandInFiles(index, num_units), folder / f"workers-{count}"
        figures[f"workers_{count}"] = in_fresh_process(_extract, files, count, path)
        yield figures
    spec, path = StandInFiles(index, num_resumed).load().spec, folder / "large"
    _write_large_store(path, spec)
    figures["resume"] = in_fresh_process(_resume, path, spec)
    yield figures


def _extract(files: StandInFiles, num_workers: int, path: Path) -> dict[str, float]:
    spec = files.load().spec
    with Writer.open(path, spec) as writer, open_client(num_workers, None) as client:
        client.wait_for_workers(num_workers)
        client.run(files.load)  # every import, before the clock starts
        start, start_cpu = time.perf_counter(), time.process_time()
        assert extract_parallel(client, files, writer)
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return {
        "units_per_s": spec.num_units / seconds,
        "coordinator_ms": 1000 * cpu / spec.num_units,
        "peak_memory_bytes": peak_memory_bytes(CPU),
    }


def _write_large_store(path: Path, spec: StoreSpec) -> None:
    """Write the journal of a store that lacks its last unit; its files are empty."""
    arrays = array_specs(spec)
    with Writer.open(path, spec):
        for unit in range(spec.num_units - 1):
            for array in arrays.values():
                (path / unit_key(array, unit)).touch()
        sizes, digests = dict.fromkeys(arrays, 2**20), dict.fromkeys(arrays, "0" * 64)
        units = range(spec.num_units - 1)
        append_entry(path, *(UnitDigest(unit, sizes, digests).to_dict() for unit in units))


def _resume(path: Path, spec: StoreSpec) -> dict[str, float]:
    start = time.perf_counter()
    with Writer.open(path, spec) as writer:
        assert writer.missing_units() == [spec.num_units - 1]
    return {
        "seconds": time.perf_counter() - start,
        "peak_memory_bytes": peak_memory_bytes(CPU),
        "journal_bytes": (path / JOURNAL).stat().st_size,
    }
