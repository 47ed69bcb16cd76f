"""The audit of a store: verified, then described (teacher, classes, size)."""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from store.errors import StoreDamagedError, list_lines
from store.grid import nearest
from store.layout import REBUILD, hint_at
from store.metrics import (
    confusion_matrix,
    iou_per_class,
    json_number,
    mean_iou,
    pixel_accuracy,
)
from store.parallel import counter, map_units
from store.progress import Progress
from store.reader import Reader
from store.schema import VOID, StoreSpec
from store.verify import verify_source


@dataclass(frozen=True)
class Counts:
    """Pixels, centers and samples of a part of a store; counts of parts add up.

    Attributes:
        confusion: Teacher against labels on the feature grid, int64 [K,K]; zeros without logits.
        pixels: Labelled pixels per class, int64 [K].
        void_pixels: Pixels without a label, padding included.
        centers: Region centers per class, int64 [K]; zeros without regions.
        samples: Pixel samples per class, int64 [K]; zeros without regions.
    """

    confusion: np.ndarray
    pixels: np.ndarray
    void_pixels: int
    centers: np.ndarray
    samples: np.ndarray

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )


def audit(reader: Reader, progress: Progress | None = None) -> dict[str, Any]:
    """Verify a store and describe it in JSON values.

    The teacher's mIoU is taken on the feature grid: argmax of the decoded logits against the
    nearest label; void and padding do not count. A figure of a target that is not stored is None.

    Args:
        reader: Of the store.
        progress: Called with (units verified and tallied, in all), each unit counting twice.

    Raises:
        StoreDamagedError: A file is missing, altered, or holds values that are not finite.
    """
    count = counter(progress, 2 * reader.spec.num_units)
    findings = verify_source(reader.source, count=count)
    if findings:
        lines = [f"{one.file}: {one.what}" for one in findings]
        raise StoreDamagedError(
            f"{len(lines)} faults",
            where=reader.path,
            found=list_lines(lines),
            hint=hint_at(reader.path, REBUILD),
        )
    by_unit = map_units(lambda unit: _count_unit(reader, unit), range(reader.spec.num_units), count)
    counts = reduce(Counts.__add__, by_unit)
    return {
        "path": reader.path,
        "fingerprint": reader.spec.fingerprint,
        "digest": reader.journal.digest,
        "records": len(reader),
        "images": reader.spec.num_images,
        "views": reader.spec.num_views,
        "units": reader.spec.num_units,
        **_teacher(counts),
        "classes": _classes(reader.spec, counts),
        "void_pixels": int(counts.void_pixels),
        **sizes(reader),
    }


def _count_unit(reader: Reader, unit: int) -> Counts:
    spec = reader.spec
    names = ["labels", "region_pixels", "pixel_sample_class", *reader.map_arrays("logits").values()]
    stored = [name for name in names if name in reader.arrays]
    arrays = reader.read(spec.unit_records(unit), stored)
    pixels = np.bincount(arrays["labels"].reshape(-1), minlength=VOID + 1)
    confusion = np.zeros((spec.num_classes, spec.num_classes), np.int64)
    centers = samples = np.zeros(spec.num_classes, np.int64)
    if "logits" in spec.targets:
        predictions = reader.decode("logits", arrays).argmax(axis=1)
        labels = nearest(arrays["labels"], spec.feature_height, spec.feature_width)
        confusion = confusion_matrix(labels, predictions, spec.num_classes)
    if "regions" in spec.targets:
        centers = (arrays["region_pixels"] > 0).sum(axis=0)
        found = np.bincount(arrays["pixel_sample_class"].reshape(-1), minlength=VOID + 1)
        samples = found[: spec.num_classes]
    return Counts(
        confusion=confusion,
        pixels=pixels[: spec.num_classes],
        void_pixels=int(pixels[VOID]),
        centers=centers,
        samples=samples,
    )


def _teacher(counts: Counts) -> dict[str, Any]:
    return {
        "teacher_miou": json_number(mean_iou(counts.confusion)),
        "teacher_pixel_accuracy": json_number(pixel_accuracy(counts.confusion)),
    }


def _classes(spec: StoreSpec, counts: Counts) -> dict[str, dict[str, Any]]:
    ious, has_regions = iou_per_class(counts.confusion), "regions" in spec.targets
    return {
        name: {
            "teacher_iou": json_number(ious[k]),
            "pixels": int(counts.pixels[k]),
            "centers": int(counts.centers[k]) if has_regions else None,
            "samples": int(counts.samples[k]) if has_regions else None,
        }
        for k, name in enumerate(spec.class_names)
    }


def sizes(reader: Reader) -> dict[str, Any]:
    """Return stored and raw bytes of every array, and of all together."""
    arrays = {
        name: {
            "stored_bytes": reader.source.stored_bytes(array, reader.journal),
            "raw_bytes": _raw_bytes(reader, name),
        }
        for name, array in reader.arrays.items()
    }
    return {
        "stored_bytes": sum(sizes["stored_bytes"] for sizes in arrays.values()),
        "raw_bytes": sum(sizes["raw_bytes"] for sizes in arrays.values()),
        "arrays": arrays,
    }


def _raw_bytes(reader: Reader, name: str) -> int:
    array = reader.arrays[name]
    if array.dtype == "str":
        return sum(len(key.encode()) for key in reader.column(name))
    return array.record_bytes * len(reader)
