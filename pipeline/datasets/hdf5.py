"""Images and labels as datasets of HDF5 files, such as NYUv2's; unpacked into files of their own.

Everything downstream reads files: an open HDF5 file does not survive a fork.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from pipeline.config.base import BaseConfig
from pipeline.config.datasets import ExternalConfig
from pipeline.datasets.classes import ClassEntry, Table, read_table
from pipeline.datasets.errors import DatasetError, Finding
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.folder import CLASSES_FILE
from pipeline.datasets.index import ClassTable
from pipeline.datasets.listing import Listing, Pair
from store.files import remove_folder, replace_file, replacing
from store.hdf5_source import open_hard_linked
from store.schema import VOID

UNFINISHED = "unfinished.json"
"""Says of which files the folder holds a part, while it does."""
IMAGE_DTYPES = ("uint8",)
LABEL_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "int64")
NUM_IDS = 2**16
UNKNOWN = -1
FILTERS = {
    *(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32),
    *(h5py.h5z.FILTER_SZIP, h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET),
    h5py.h5z.FILTER_LZF,
}
"""Those that come with h5py; any other is code that libhdf5 would look for on the machine."""
MAX_CHUNK_BYTES = 2**28
"""Also what libhdf5 keeps in memory: a chunk may span many images, and is unpacked once for all."""
MAX_PIXELS = 2**26
NUMBERS = re.compile(r"[\s,]*\d+(-\d+)?([\s,]+\d+(-\d+)?)*[\s,]*")

Id = Annotated[int, Field(ge=0, lt=NUM_IDS)]


class Source(BaseConfig):
    """The images and labels of one split.

    `layout` has the axes of the images as h5py shows them; those of the labels are the same without
    C. `numbers` is text such as `1-795, 801`, or a text file of such; without it, all are taken.
    """

    file: str
    images: str = "images"
    labels: str = "labels"
    layout: Literal["NHWC", "NCHW", "NCWH"] = "NHWC"
    numbers: str | None = None
    first_number: Literal[0, 1] = 0

    @property
    def numbers_file(self) -> str | None:
        """Return the name of the file of numbers, if there is one."""
        return self.numbers if self.numbers and not NUMBERS.fullmatch(self.numbers) else None


class Splits(BaseConfig):
    """Where each split lies."""

    train: Source
    val: Source
    test: Source | None = None


class Config(ExternalConfig):
    """HDF5 files and classes.yaml in one folder."""

    splits: Splits

    @property
    def sources(self) -> dict[str, Source]:
        """Return the source of each split that there is."""
        return {split: source for split, source in self.splits if source is not None}


class _Class(ClassEntry):
    id: Id | Annotated[list[Id], Field(min_length=1)]

    @property
    def ids(self) -> list[int]:
        return [self.id] if isinstance(self.id, int) else self.id


class _Classes(Table):
    classes: Annotated[list[_Class], Field(min_length=1, max_length=VOID)]
    void: list[Id]

    def meanings(self) -> list[tuple[str, str]]:
        ids = [(value, entry.name) for entry in self.classes for value in entry.ids]
        ids += [(value, "void") for value in self.void]
        return [(f"id {value}", meaning) for value, meaning in ids]


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the HDF5 files, the numbers and the class table, wherever the root lies."""
    sources = dataset.sources.values()
    files = {name for one in sources for name in (one.file, one.numbers_file) if name is not None}
    return fingerprint_files(Path(dataset.root), [], [CLASSES_FILE, *sorted(files)])


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Unpack every image and its labels, as classes, into `pixels`; killed and repeated it goes on.

    Raises:
        DatasetError: classes.yaml is missing or wrong, so no label can be judged.
    """
    root = Path(dataset.root)
    classes, class_of_id = _read_classes(root)
    _begin(pixels, json.dumps([fingerprint(dataset), dataset.splits.model_dump()]))
    splits: dict[str, tuple[Pair, ...]] = {}
    findings: list[Finding] = []
    for split, source in dataset.sources.items():
        try:
            splits[split] = _unpack(root, split, source, class_of_id, pixels)
        except DatasetError as error:
            findings += error.findings
    if not findings:
        (pixels / UNFINISHED).unlink()
    # Two splits of one file have its faults in common.
    return Listing(classes, splits, tuple(dict.fromkeys(findings)), in_pixels=True)


def _read_classes(root: Path) -> tuple[ClassTable, NDArray[np.int16]]:
    """Read classes.yaml: the table of the unpacked labels, and the class of each id in HDF5.

    The latter is int16 [NUM_IDS + 1]: 0..K-1, VOID or UNKNOWN; its last is of ids out of range.
    """
    table = read_table(root / CLASSES_FILE, lambda raw: _Classes)
    class_of_id = np.full(NUM_IDS + 1, UNKNOWN, np.int16)
    class_of_id[table.void] = VOID
    for number, entry in enumerate(table.classes):
        class_of_id[entry.ids] = number
    names = tuple(entry.name for entry in table.classes)
    palette = tuple(entry.colour for entry in table.classes)
    return ClassTable(names, palette, tuple(range(len(names))), (VOID,)), class_of_id


def _begin(pixels: Path, source: str) -> None:
    """Empty the folder, unless it holds a part of the same source."""
    marker = pixels / UNFINISHED
    if not marker.is_file() or marker.read_text() != source:
        remove_folder(pixels)
        replace_file(marker, source.encode())


def _unpack(
    root: Path, split: str, source: Source, class_of_id: NDArray[np.int16], pixels: Path
) -> tuple[Pair, ...]:
    """Write what is missing of a split, one image after the other.

    Raises:
        DatasetError: with a finding for each label file of unknown ids, or for what cannot be read.
    """
    pairs, findings = [], []
    with ExitStack() as stack:
        with _reading(root, source.file):
            path = _check_file(root / source.file)
            file = stack.enter_context(h5py.File(path, "r", rdcc_nbytes=MAX_CHUNK_BYTES))
            images = _Arrays(file, source.images, source.layout)
            labels = _Arrays(file, source.labels, source.layout.replace("C", ""))
            if images.count != labels.count:
                raise ValueError(f"{images.count} images and {labels.count} labels")
        with _reading(root, f"{split}: numbers {source.numbers}"):
            numbers = _read_numbers(root, source, images.count)
        for number in numbers:
            # Netpbm: the same pixels are the same bytes, whatever the version of Pillow and zlib.
            names = (f"{split}/images/{number:06d}.ppm", f"{split}/labels/{number:06d}.pgm")
            pairs.append(Pair(f"{split}/{number:06d}", *names))
            if (pixels / names[-1]).exists():  # it was written last
                continue
            position = number - source.first_number
            with _reading(root, f"{source.file}: number {number}"):
                image, ids = images.read(position), labels.read(position).astype(np.int64)
            classes = class_of_id[np.where((ids >= 0) & (ids < NUM_IDS), ids, NUM_IDS)]
            if (unknown := classes == UNKNOWN).any():
                findings.append(_unknown_ids(f"{source.file}: number {number}", ids[unknown]))
                continue
            for name, values in zip(names, (image, classes.astype(np.uint8)), strict=True):
                with replacing(pixels / name) as partial:
                    Image.fromarray(values).save(partial, "PPM")
    if findings:
        raise DatasetError(str(root), findings)
    return tuple(pairs)


def _unknown_ids(where: str, ids: NDArray[np.int64]) -> Finding:
    found = zip(*np.unique(ids, return_counts=True), strict=True)
    listed = ", ".join(f"{value} ({pixels} px)" for value, pixels in found)
    return Finding(where, "label id outside the table", f"ids of {CLASSES_FILE}", listed)


@contextmanager
def _reading(root: Path, name: str) -> Iterator[None]:
    """Make a finding of whatever goes wrong while `name` is read."""
    try:
        yield
    except Exception as error:  # h5py raises OSError, KeyError, ValueError, RuntimeError, ...
        finding = Finding(name, "unreadable", "what `dataset.splits` describes", str(error))
        raise DatasetError(str(root), [finding]) from error


def _check_file(path: Path) -> Path:
    if not path.is_file():  # opening a FIFO would wait for ever
        raise FileNotFoundError("no such file")
    return path


class _Arrays:
    """A dataset of HDF5 that holds the images, or where it has no axis C the labels, of samples."""

    def __init__(self, file: h5py.File, name: str, axes: str) -> None:
        dataset = open_hard_linked(file, name)
        kinds = IMAGE_DTYPES if "C" in axes else LABEL_DTYPES
        shape = dict(zip(axes, dataset.shape, strict=False))
        if dataset.ndim != len(axes) or shape.get("C", 3) != 3 or dataset.dtype.name not in kinds:
            found = f"{dataset.dtype} {dataset.shape}"
            raise ValueError(f"{name}: expected {axes}, {' or '.join(kinds)}; found {found}")
        if not 0 < shape["H"] * shape["W"] <= MAX_PIXELS:
            raise ValueError(f"{name}: images of {shape['W']}x{shape['H']} pixels")
        _check_storage(name, dataset)
        self._dataset, self.count = dataset, shape["N"]
        self._order = [axes[1:].index(axis) for axis in "HWC" if axis in axes]

    def read(self, position: int) -> NDArray[Any]:  # uint8, or any integers
        """Read one of them as [H, W, 3] or [H, W]."""
        return np.ascontiguousarray(self._dataset[position].transpose(self._order))


def _check_storage(name: str, dataset: h5py.Dataset) -> None:
    """Refuse values that lie elsewhere, are absent, or need other code or much memory to unpack.

    Raises:
        ValueError: says which of them.
    """
    creation = dataset.id.get_create_plist()
    filters = {creation.get_filter(number)[0] for number in range(creation.get_nfilters())}
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name}: its values lie in other files")
    if not filters <= FILTERS:
        raise ValueError(f"{name}: filter {min(filters - FILTERS)}, which does not come with h5py")
    if dataset.chunks is None:
        whole = dataset.id.get_storage_size() >= dataset.nbytes
    else:
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk_bytes > MAX_CHUNK_BYTES:
            raise ValueError(f"{name}: chunks of {chunk_bytes} bytes, at most {MAX_CHUNK_BYTES}")
        sides = zip(dataset.shape, dataset.chunks, strict=True)
        whole = dataset.id.get_num_chunks() == math.prod(-(-all // one) for all, one in sides)
    if not whole:
        raise ValueError(f"{name}: values are absent, which HDF5 reads as zeros")


def _read_numbers(root: Path, source: Source, count: int) -> list[int]:
    """Return the numbers of a split's samples; without any given, those of all `count`.

    Raises:
        ValueError: what is no number or range of them, is not among the samples, or comes twice.
    """
    everything = range(source.first_number, source.first_number + count)
    text = source.numbers or f"{everything.start}-{everything.stop - 1}"
    if source.numbers_file:
        text = _check_file(root / source.numbers_file).read_text(encoding="utf-8")
    if not NUMBERS.fullmatch(text):
        raise ValueError("expected numbers and ranges such as 1-795, 801")
    numbers: list[int] = []
    for word in re.findall(r"[\d-]+", text):
        first, _, last = word.partition("-")
        if int(first) not in everything or int(last or first) not in everything:
            raise ValueError(f"{word}: expected {everything.start}-{everything.stop - 1}")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError("no number, or the same one twice")
    return numbers
