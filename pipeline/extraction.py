"""The teacher's single pass: views and targets of every training image, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import params
from pipeline.datasets.index import Index, read_image, read_labels
from pipeline.losses.at import attention, power
from pipeline.losses.embedding import embed
from pipeline.network import STRIDE, normalise, precision_scope
from pipeline.provenance import device_name, versions
from pipeline.randomness import torch_generator
from pipeline.regions import draw_pixels, region_centers
from pipeline.stream import TABLE, grid_inside
from pipeline.teacher import ARCHITECTURE, FEATURE_CHANNELS, PREPROCESSING
from pipeline.views import draw_view
from store.arrays import TARGETS
from store.encodings.registry import find_encoding
from store.grid import nearest
from store.journal import UnitDigest
from store.schema import SCHEMA_VERSION, VOID, StoreSpec
from store.writer import Writer, write_unit

Item = TypeVar("Item")
Result = TypeVar("Result")


def plan_store(
    index: Index, settings: params.Store, teacher_sha256: str, device: torch.device
) -> StoreSpec:
    """Sizes and identity of the store that these settings lead to."""
    crop, encodings = settings.crop, settings.encodings
    identity: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "dataset": index.fingerprint,
        "teacher": {
            "architecture": ARCHITECTURE,
            "sha256": teacher_sha256,
            "preprocessing": PREPROCESSING,
        },
        "views": {
            "num_views": settings.num_views,
            "seed": settings.seed,
            "samples_per_class": settings.samples_per_class,
            **crop.model_dump(),
        },
        "encodings": encodings.model_dump(),
        "precision": settings.precision,
        "unit_size": settings.unit_size,
    }
    if settings.targets != TARGETS:
        # Only then, so that stores from before there was a choice keep their names.
        identity["targets"] = list(settings.targets)
    return StoreSpec(
        identity=identity,
        num_images=len(index.splits["train"]),
        num_views=settings.num_views,
        height=crop.height,
        width=crop.width,
        num_classes=index.num_classes,
        feature_channels=FEATURE_CHANNELS,
        feature_height=crop.height // STRIDE,
        feature_width=crop.width // STRIDE,
        stride=STRIDE,
        sample_slots=settings.samples_per_class * index.most_classes,
        unit_size=settings.unit_size,
        targets=settings.targets,
        logits_encoding=find_encoding(encodings.logits),
        features_encoding=find_encoding(encodings.features),
        class_names=tuple(index.class_names),
        provenance=_provenance(settings, device),
    )


def _provenance(settings: params.Store, device: torch.device) -> dict[str, Any]:
    """Recorded, never part of the fingerprint: an upgrade must not orphan a store."""
    return {
        "device": device_name(device),
        "threads": settings.threads,
        "forward_batch": settings.forward_batch,
        "versions": versions(),
    }


@dataclass(frozen=True)
class Extraction:
    """Everything that decides what a store will hold.

    Attributes:
        index: of the dataset; its training split is extracted.
        teacher: in eval mode, on `device`.
        settings: of the store.
        spec: what `plan_store` made of them.
        device: of the teacher.
    """

    index: Index
    teacher: nn.Module
    settings: params.Store
    spec: StoreSpec
    device: torch.device


def extract(
    job: Extraction,
    writer: Writer,
    progress: Callable[[int], None] = lambda records: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> bool:
    """Write every unit that is still missing; reading, teacher and writing overlap.

    Args:
        job: what to extract.
        writer: open on the store; units enter its journal in this thread.
        progress: called with the number of records of each finished unit.
        keep_going: asked before each unit; after False the units in hand are finished.

    Returns:
        Whether the store is complete.
    """
    torch.set_num_threads(job.settings.threads)

    def targets() -> Iterator[tuple[int, dict[str, np.ndarray], Said]]:
        drawn = ahead(lambda unit: (unit, _draw_unit(job, unit)), writer.missing_units())
        for unit, arrays in drawn:
            if not keep_going():
                return
            yield unit, arrays, forward_teacher(job, arrays["image"])

    def write(item: tuple[int, dict[str, np.ndarray], Said]) -> UnitDigest:
        unit, arrays, said = item
        return write_unit(writer.path, job.spec, unit, encode_unit(job, unit, arrays, said))

    for digest in ahead(write, targets()):
        writer.commit(digest)
        progress(len(job.spec.unit_records(digest.unit)))
    return not writer.missing_units()


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in order, in a thread that works on one item while the next one is fetched here."""
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for item in items:
            upcoming = pool.submit(function, item)
            if pending is not None:
                yield pending.result()
            pending = upcoming
        if pending is not None:
            yield pending.result()


def build_unit(job: Extraction, unit: int) -> dict[str, np.ndarray]:
    """Every array of one unit's records, encoded, by schema name."""
    arrays = _draw_unit(job, unit)
    return encode_unit(job, unit, arrays, forward_teacher(job, arrays["image"]))


def _draw_unit(job: Extraction, unit: int) -> dict[str, np.ndarray]:
    return draw_records(job.index, job.settings, job.spec.unit_records(unit))


def encode_unit(
    job: Extraction, unit: int, arrays: dict[str, np.ndarray], said: Said
) -> dict[str, np.ndarray]:
    """Join a unit's views with what was said of them, in the schema's names and encodings."""
    spec, said = job.spec, said.cpu()
    # This may be another thread than the teacher's, and torch counts threads for each.
    torch.set_num_threads(job.settings.threads)
    labels = torch.from_numpy(nearest(arrays["labels"], spec.feature_height, spec.feature_width))
    inside = torch.from_numpy(grid_inside(arrays, spec.stride))
    build: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "logits": lambda: _encoded("logits", spec.logits_encoding, said.logits),
        "features": lambda: _encoded("features", spec.features_encoding, said.features),
        "auxiliary_attention": lambda: _attended(said.auxiliary_power, inside),
        "regions": lambda: _by_class(job, unit, said.features, labels),
    }
    for target in spec.targets:
        arrays = arrays | build[target]()
    return arrays


def draw_records(
    index: Index, settings: params.Store, records: Sequence[int]
) -> dict[str, np.ndarray]:
    """Images, labels and the view table of some records: record n = view * num_images + image."""
    samples = index.splits["train"]
    rows: dict[str, list[Any]] = {}
    for record in records:
        view_index, place = divmod(record, len(samples))
        sample = samples[place]
        size = sample.height, sample.width
        view = draw_view(settings.crop, settings.seed, sample.key, view_index, *size)
        row = {
            "image": view.image(read_image(index, sample)),
            "labels": view.labels(read_labels(index, sample)),
            "key": sample.key,
            "view_index": view_index,
            **{column: asdict(view)[column] for column in TABLE},
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in rows.items()}


class Said(NamedTuple):
    """What a teacher says of n images, float32.

    Attributes:
        logits: [n, K, h, w].
        features: [n, D, h, w].
        auxiliary_power: [n, h, w], mean square over classes of the auxiliary head's logits.
    """

    logits: Tensor
    features: Tensor
    auxiliary_power: Tensor

    def cpu(self) -> Said:
        """The same on the host; waits for the device."""
        return Said(*(target.cpu() for target in self))


@torch.no_grad()
def forward_teacher(job: Extraction, images: np.ndarray | Tensor) -> Said:
    """Run the teacher on uint8 images [n, 3, H, W]; the targets stay on its device.

    Forward batches are of a fixed size, because outputs differ in the last bits between sizes.
    """
    size, outputs = job.settings.forward_batch, []
    for first in range(0, len(images), size):
        batch = torch.as_tensor(images[first : first + size]).to(job.device)
        with precision_scope(job.device, job.settings.precision):
            outputs.append(job.teacher(normalise(batch)))
    # Contiguous, as the store gives them back, so that live and stored take the same code paths.
    logits = torch.cat([output.logits.float() for output in outputs]).contiguous()
    features = torch.cat([output.features.float() for output in outputs]).contiguous()
    return Said(logits, features, torch.cat([power(output.auxiliary) for output in outputs]))


def _encoded(name: str, encoding: Any, values: Tensor) -> dict[str, np.ndarray]:
    array = values.numpy()
    return {name + suffix: part for suffix, part in encoding.encode(array).items()}


def _attended(auxiliary_power: Tensor, inside: Tensor) -> dict[str, np.ndarray]:
    attended = attention(auxiliary_power, inside).view(inside.shape)
    return {"auxiliary_attention": attended.numpy().astype(np.float16)}


def _by_class(
    job: Extraction, unit: int, features: Tensor, labels: Tensor
) -> dict[str, np.ndarray]:
    """Region centers, and pixel samples packed into the P slots of a record."""
    settings, spec, records = job.settings, job.spec, job.spec.unit_records(unit)
    embeddings = embed(features)
    centers, pixels = region_centers(embeddings, labels, spec.num_classes)
    samples = np.zeros((len(records), spec.sample_slots, spec.feature_channels), np.float16)
    classes = np.full((len(records), spec.sample_slots), VOID, np.uint8)
    for row, record in enumerate(records):
        generator = torch_generator(settings.seed, "pixel_sample", record)
        one = slice(row, row + 1)
        draw = draw_pixels(
            embeddings[one], labels[one], spec.num_classes, settings.samples_per_class, generator
        )
        found = draw.classes[0] != VOID
        count = int(found.sum())
        samples[row, :count] = draw.embeddings[0][found].numpy()
        classes[row, :count] = draw.classes[0][found].numpy()
    return {
        "region_center": centers.numpy().astype(np.float16),
        "region_pixels": pixels.numpy(),
        "pixel_sample": samples,
        "pixel_sample_class": classes,
    }
