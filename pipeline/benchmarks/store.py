"""Size, speed and precision of the store against raw arrays, h5py and a memory map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.benchmarks.timing import interleaved_medians
from pipeline.config.params import Crop
from pipeline.extraction.job import Extraction
from pipeline.extraction.records import draw_records
from pipeline.extraction.spot_check import compare
from pipeline.extraction.targets import TeacherOutputs, encode_unit, forward_teacher
from pipeline.loading.workers import open_loader
from pipeline.ops.subspace import basis_tensor, lift
from pipeline.runtime.rng import torch_generator
from store.files import sync_path
from store.hdf5 import to_hdf5
from store.reader import Reader, open_store
from store.writer import Writer

NUM_RECORDS = 32
HEIGHT, WIDTH = 512, 1024
BATCH_SIZE = 8
NUM_WORKERS = 2
NUM_PASSES = 4  # over the records in one timed call, so that the loader's start weighs less


def fixed_views(job: Extraction, height: int, width: int, unit_size: int) -> Extraction:
    """Return the extraction of 32 images, each scaled so that its one window has no padding.

    Raises:
        ValueError: the dataset has fewer.
    """
    samples = job.index.splits["train"][:NUM_RECORDS]
    if len(samples) < NUM_RECORDS:
        raise ValueError(
            f"{job.index.name}: expected {NUM_RECORDS} training images or more to measure with; "
            f"found {len(samples)}"
        )
    scale = max(max(height / one.height, width / one.width) for one in samples)
    scale = math.ceil(scale * 100) / 100
    crop = Crop(height=height, width=width, scale_min=scale, scale_max=scale, flip_probability=0.0)
    changed = {"crop": crop, "num_views": 1, "unit_size": unit_size}
    settings = job.settings.model_copy(update=changed)
    index = replace(job.index, splits={"train": samples})
    return job.replan(settings, index)


def benchmark(
    job: Extraction, folder: Path, *, height: int = HEIGHT, width: int = WIDTH, num_runs: int = 7
) -> dict[str, float]:
    """Store one unit of a real teacher's targets in every way, and read it back.

    Args:
        job: dataset, teacher, encodings and precision to measure with.
        folder: an empty one, for the files.
        height: of the views, in pixels.
        width: of the views, in pixels.
        num_runs: timed rounds, interleaved.

    Returns:
        bytes_ratio: stored bytes of features, their scales and logits / the same as raw float16.
        read_ms_per_view, memmap_ms_per_view, hdf5_ms_per_view: whole records (image, labels and
            targets) through a loader with 2 processes, batch 8; read_ratio_memmap of the first two.
        write_ratio: encode, write and sync a unit / write and sync raw float16 .npy files.
        logits_kl, similarity_kl: nats; see `pipeline.extraction.spot_check.compare`.
    """
    job = fixed_views(job, height, width, NUM_RECORDS)
    settings, spec = job.settings, job.spec
    records = spec.unit_records(0)
    arrays = draw_records(job.index, settings, records)
    outputs = forward_teacher(job, arrays["image"]).cpu()
    whole = forward_teacher(replace(job, teacher=job.whole_teacher), arrays["image"]).cpu()
    raw = _raw_float16(arrays, whole)

    def write_store() -> None:
        path = folder / f"store-{len(list(folder.iterdir()))}"
        with Writer.open(path, spec) as writer:
            writer.write(0, encode_unit(job, 0, arrays, outputs))
            writer.finish()

    writes = {"store": write_store, "raw": lambda: _write_raw(raw, folder / "raw")}
    write_s = interleaved_medians(writes, num_runs)
    reader = open_store(next(folder.glob("store-*")))
    to_hdf5(reader.path, folder / "store.h5")
    names = ("image", "labels", *reader.map_arrays("features").values())
    names = (*names, *reader.map_arrays("logits").values())
    memmaps = _memmaps(reader, names, folder / "memmap")
    reads = {
        "store": _pass(_Stored(reader, names)),
        "hdf5": _pass(_Stored(open_store(folder / "store.h5"), names)),
        "memmap": _pass(_Mapped(memmaps)),
    }
    read_s = interleaved_medians(reads, num_runs)
    stored = tuple(
        torch.from_numpy(reader.decode(name, reader.read(records, names)))
        for name in ("logits", "features")
    )
    stored = stored[0], lift(stored[1], basis_tensor(spec, stored[1].device))
    generator = torch_generator(settings.seed, "benchmark")
    deviation = compare((whole.logits, whole.features), (stored[0], stored[1]), generator)
    stored_bytes = sum(reader.journal.units[0].num_bytes[name] for name in names[2:])
    raw_bytes = raw["logits"].nbytes + raw["features"].nbytes
    return {
        "bytes_ratio": stored_bytes / raw_bytes,
        "read_ratio_memmap": read_s["store"] / read_s["memmap"],
        "write_ratio": write_s["store"] / write_s["raw"],
        "similarity_kl": deviation["similarity_kl"],
        "logits_kl": deviation["logits_kl"],
        "argmax_kept": deviation["argmax_kept"],
        "read_ms_per_view": 1000 * read_s["store"] / (NUM_PASSES * len(records)),
        "memmap_ms_per_view": 1000 * read_s["memmap"] / (NUM_PASSES * len(records)),
        "hdf5_ms_per_view": 1000 * read_s["hdf5"] / (NUM_PASSES * len(records)),
        "write_ms_per_view": 1000 * write_s["store"] / len(records),
        "raw_write_ms_per_view": 1000 * write_s["raw"] / len(records),
        "stored_bytes_per_view": stored_bytes / len(records),
        "num_classes": spec.num_classes,
        "feature_channels": spec.teacher_channels,
    }


class _Stored(Dataset[dict[str, Tensor]]):
    def __init__(self, reader: Reader, names: tuple[str, ...]) -> None:
        self._reader, self._names = reader, names

    def __getitem__(self, records: np.ndarray) -> dict[str, Tensor]:
        arrays = self._reader.read(records, self._names)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class _Mapped(Dataset[dict[str, Tensor]]):
    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def __getitem__(self, records: np.ndarray) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(np.load(path, mmap_mode="r")[records])
            for name, path in self._files.items()
        }


def _pass(dataset: Dataset[dict[str, Tensor]]) -> Callable[[], None]:
    """Read every record NUM_PASSES times, in a fixed random order; loader processes included."""
    order = np.random.default_rng(0).permutation(NUM_RECORDS)
    batches = np.array_split(order, NUM_RECORDS // BATCH_SIZE)

    def call() -> None:
        for batch in open_loader(dataset, batches * NUM_PASSES, 0, NUM_WORKERS, pin_memory=False):
            assert len(batch["image"]) == BATCH_SIZE

    return call


def _raw_float16(
    arrays: Mapping[str, np.ndarray], outputs: TeacherOutputs
) -> dict[str, np.ndarray]:
    targets = {"logits": outputs.logits, "features": outputs.features}
    raw = {name: target.numpy().astype(np.float16) for name, target in targets.items()}
    return {**raw, "image": arrays["image"], "labels": arrays["labels"]}


def _write_raw(raw: Mapping[str, np.ndarray], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, array in raw.items():
        np.save(folder / f"{name}.npy", array)
        sync_path(folder / f"{name}.npy")


def _memmaps(reader: Reader, names: tuple[str, ...], folder: Path) -> dict[str, Path]:
    folder.mkdir()
    for name in names:
        np.save(folder / f"{name}.npy", reader.column(name))
    return {name: folder / f"{name}.npy" for name in names}
