"""Writing a store unit by unit, so that a kill at any moment loses one unit and damages none.

The files of a unit are written under other names, renamed and forced to the disk, their folders
too; then one journal line is appended and forced. So the files of a unit that the journal names are
there. `write_unit` does all but the journal, in any process; only the one `Writer` that holds the
lock writes the journal.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from store.chunks import ZSTD_LEVEL, ZarrSource, encode_file
from store.errors import (
    StoreError,
    StoreIncompleteError,
    StoreMismatchError,
    StoreWriteError,
    list_lines,
)
from store.files import PARTIAL, remove_folder, replace_file, sync_path
from store.journal import (
    Journal,
    UnitDigest,
    append_entry,
    check_units,
    create_journal,
    read_journal,
)
from store.layout import (
    HDF5_SUFFIXES,
    JOURNAL,
    LOCK,
    METADATA,
    RESUME,
    LocalFiles,
    group_attributes,
    is_url,
    metadata_keys,
    read_spec,
    unit_key,
)
from store.lock import Lock, check_token
from store.manifest import Manifest
from store.schema import StoreSpec, array_specs, diff_identity
from store.validation import validate_arrays

StorePath = str | os.PathLike[str]


class Writer:
    """The one writer of a store; a context manager that holds its lock.

    Attributes:
        path: The store's folder.
        spec: What it will hold.
    """

    def __init__(self, path: Path, spec: StoreSpec, lock: Lock, units: set[int]) -> None:
        self.path = path
        self.spec = spec
        self._lock = lock
        self._units = units

    @classmethod
    def open(cls, path: StorePath, spec: StoreSpec) -> Self:
        """Create a store, or open one that was begun to go on with it.

        Raises:
            StoreLockedError: Another process writes it.
            StoreMismatchError: Something else lies there; for a store, the message lists every
                field that differs.
            StoreDamagedError: The store that lies there is broken.
            StoreWriteError: The file system refuses.
        """
        root = local_folder(path)
        with _translate_errors(root):
            _refuse_unknown_files(root, spec)
            lock = Lock(root)
        try:
            with _translate_errors(root):
                if not (root / JOURNAL).exists():
                    _create(root, spec)
                return cls(root, spec, lock, _resume(root, spec))
        except BaseException:
            lock.release()
            raise

    @property
    def token(self) -> str:
        """Return what stands in the lock's file while this writer is open: see `write_unit`."""
        return self._lock.token

    def missing_units(self) -> list[int]:
        """List the units that are still to be written."""
        return [unit for unit in range(self.spec.num_units) if unit not in self._units]

    def write(self, unit: int, arrays: Mapping[str, np.ndarray]) -> UnitDigest:
        """Write one unit and enter it into the journal: `write_unit` and `commit`."""
        digest = write_unit(self.path, self.spec, unit, arrays)
        self.commit(digest)
        return digest

    def commit(self, digest: UnitDigest) -> None:
        """Enter a unit into the journal that `write_unit` has written, in any process.

        Raises:
            StoreWriteError: Its files are not here, or the file system refuses.
        """
        with _translate_errors(self.path):
            self._refuse_unseen(digest)
            append_entry(self.path, digest.to_dict())
        self._units.add(digest.unit)

    def _refuse_unseen(self, digest: UnitDigest) -> None:
        """Refuse a unit that its worker has written to a disk of its own."""
        for name, array in array_specs(self.spec).items():
            file = self.path / unit_key(array, digest.unit)
            found = _size(file)
            if found != digest.num_bytes[name]:
                raise StoreWriteError(
                    "what a worker has written is not here",
                    where=str(file),
                    expected=f"{digest.num_bytes[name]} bytes",
                    found="no file" if found is None else f"{found} bytes",
                    hint="give every worker the disk of this process, at the same path",
                )

    def revoke(self, unit: int) -> None:
        """Mark a unit as missing again."""
        with _translate_errors(self.path):
            append_entry(self.path, {"revoked": unit})
        self._units.discard(unit)

    def finish(self) -> Manifest:
        """Remove what killed workers left, and return the manifest of the finished store.

        Raises:
            StoreIncompleteError: Units are missing.
        """
        missing = self.missing_units()
        if missing:
            raise StoreIncompleteError(
                "the store is not finished",
                where=str(self.path),
                expected=f"{self.spec.num_units} units",
                found=f"{len(missing)} missing, the first {missing[0]}",
                hint=RESUME,
            )
        with _translate_errors(self.path):
            _remove_leftovers(self.path)
        return Manifest.of(self.path.as_posix(), self.spec, read_journal(LocalFiles(self.path)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def local_folder(path: StorePath) -> Path:
    """Return the path of a store that can be written; StoreMismatchError for all others."""
    location = os.fspath(path)
    if is_url(location) or location.endswith(HDF5_SUFFIXES):
        raise StoreMismatchError(
            "only a local folder can be written",
            where=location,
            expected="a folder",
            found="a URL" if is_url(location) else "an HDF5 file",
            hint="work on the folder that it was copied from, and copy it again",
        )
    return Path(location)


def write_unit(
    path: StorePath,
    spec: StoreSpec,
    unit: int,
    arrays: Mapping[str, np.ndarray],
    token: str | None = None,
) -> UnitDigest:
    """Write one unit's files and force them to the disk, in any process, a unit in one at a time.

    Args:
        path: A store that a `Writer` has opened.
        spec: Its spec.
        unit: Which unit.
        arrays: Every array of `array_specs(spec)`, encoded, leading axis = records of the unit.
        token: Of the writer that this is for, where it may have been closed meanwhile.

    Raises:
        StoreMismatchError: An array is missing, unknown, of another shape or dtype, or not finite;
            or the store at `path` is another one.
        StoreLockedError: The writer of that token no longer holds the store, or not this one.
        StoreWriteError: The file system refuses.
    """
    root = Path(path)
    specs = array_specs(spec)
    valid = validate_arrays(spec, unit, arrays, f"{root}, unit {unit}")
    _refuse_other_store(root, spec)
    if token is not None:
        check_token(root, token)
    num_bytes, sha256 = {}, {}
    # Files that are forced to the disk at the same time share the journal commits of its system.
    with _translate_errors(root), ThreadPoolExecutor(len(specs)) as pool:
        written = []
        for name, array in specs.items():
            content = encode_file(array, valid[name])
            remove_folder(root / unit_key(array, unit))
            written.append(pool.submit(replace_file, root / unit_key(array, unit), content))
            num_bytes[name], sha256[name] = len(content), hashlib.sha256(content).hexdigest()
        for file in written:
            file.result()
    return UnitDigest(unit, num_bytes, sha256)


def _refuse_unknown_files(root: Path, spec: StoreSpec) -> None:
    """Refuse a folder that holds anything but a store, or the beginnings of one."""
    if not root.is_dir() or (root / JOURNAL).exists():
        return
    beginnings = {LOCK, METADATA, *array_specs(spec)}
    entries = [entry for entry in root.iterdir() if entry.name not in beginnings]
    # A unit comes after the journal.
    for name in array_specs(spec):
        entries += [entry for entry in (root / name).glob("*") if entry.name != METADATA]
    unknown = sorted(str(entry.relative_to(root)) for entry in entries if entry.suffix != PARTIAL)
    if unknown:
        raise StoreMismatchError(
            "not a feature store",
            where=str(root),
            expected="an empty folder",
            found=unknown,
            hint="name another folder",
        )


def _create(root: Path, spec: StoreSpec) -> None:
    """Write all metadata, force it to the disk, and only then the journal that makes it a store."""
    # Of a writer that was killed, whole or not.
    (root / METADATA).unlink(missing_ok=True)
    _write_metadata(root, spec)
    keys = metadata_keys(spec)
    sync_path(root.parent)
    with ThreadPoolExecutor(len(keys)) as pool:
        for paths in ([root / key for key in keys], [(root / key).parent for key in keys]):
            list(pool.map(sync_path, paths))
    create_journal(
        root, {key: hashlib.sha256((root / key).read_bytes()).hexdigest() for key in keys}
    )


def _write_metadata(root: Path, spec: StoreSpec) -> None:
    group = zarr.open_group(root, mode="a", zarr_format=3, use_consolidated=False)
    for array in array_specs(spec).values():
        group.create_array(
            array.name,
            shape=array.shape,
            dtype=str if array.dtype == "str" else array.dtype,
            chunks=(1, *array.record_shape) if array.sharded else array.file_shape,
            shards=array.file_shape if array.sharded else None,
            compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=array.axes,
            overwrite=True,
        )
    group.attrs.put(group_attributes(spec))


def _mend_metadata(root: Path, spec: StoreSpec, journal: Journal) -> None:
    """Write damaged metadata again, where it comes out as the journal says that it was."""
    damaged = ZarrSource(LocalFiles(root)).damaged_metadata(spec, journal)
    if not damaged:
        return
    with TemporaryDirectory() as folder:
        _write_metadata(Path(folder), spec)
        other = ZarrSource(LocalFiles(folder)).damaged_metadata(spec, journal)
        for key in set(damaged) - set(other):
            replace_file(root / key, Path(folder, key).read_bytes())


def _resume(root: Path, spec: StoreSpec) -> set[int]:
    """Remove what a killed writer left, and return the units that are complete."""
    journal = read_journal(LocalFiles(root))
    _mend_metadata(root, spec, journal)
    _refuse_other_store(root, spec)
    check_units(journal, spec, str(root / JOURNAL))
    os.truncate(root / JOURNAL, journal.num_bytes)
    _remove_leftovers(root)
    return set(journal.units)


def _remove_leftovers(root: Path) -> None:
    for partial in root.rglob(f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _size(file: Path) -> int | None:
    """Return the bytes of a file; opened, so that a network file system asks its server."""
    try:
        with open(file, "rb") as opened:
            return os.fstat(opened.fileno()).st_size
    except FileNotFoundError:
        return None


def _refuse_other_store(root: Path, spec: StoreSpec) -> None:
    found, expected = read_spec(LocalFiles(root)).to_dict(), spec.to_dict()
    # The store keeps the provenance of its first writer: an upgrade does not orphan it.
    lines = diff_identity(expected | {"provenance": {}}, found | {"provenance": {}})
    if lines:
        raise StoreMismatchError(
            "another store lies here",
            where=str(root),
            expected="the identity asked for",
            found=list_lines(lines),
            hint="choose another folder, or go back to the parameters that it was begun with",
        )


@contextlib.contextmanager
def _translate_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreWriteError(
            "the file system refused",
            where=str(root),
            expected="room, and permission to write",
            found=error,
            hint="make room or gain permission, then start again: finished units are kept",
        ) from error
