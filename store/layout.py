"""Where things lie inside a store's folder, and how to reach them.

<store>/zarr.json               the Zarr v3 group: its attributes are the StoreSpec
<store>/<array>/zarr.json       one array
<store>/<array>/c.<unit>.0...   the array's records of one unit: one file
<store>/journal.jsonl           what is complete (see `store.journal`)
<store>/lock                    held by the one writer; names its pid and host
"""

import errno
import json
import os
import stat
from collections.abc import Callable
from typing import Any, Protocol

from store.arrays import ArraySpec
from store.errors import (
    StoreDamagedError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreUnreachableError,
)
from store.schema import READABLE_VERSIONS, StoreSpec, array_specs

JOURNAL = "journal.jsonl"
LOCK = "lock"
METADATA = "zarr.json"
MAX_METADATA_BYTES = 2**24
"""Of one metadata file; names of classes and provenance take kilobytes, a basis up to 8 MiB."""
HDF5_SUFFIXES = (".h5", ".hdf5")
KIND = "offline-cirkd feature store"

RESUME = "rerun `dvc repro -f -s extract`: it goes on at the first missing unit"
REBUILD = (
    "`cirkd store repair` extracts damaged units again; or delete the store's folder and rerun "
    "`dvc repro -f -s extract`"
)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tell whether a store lies behind fsspec rather than in the local file system."""
    return "://" in os.fspath(path)


def hint_at(location: str, local: str) -> str:
    """Return what to do about a fault; `local` is for a folder, which alone can be written."""
    if is_url(location):
        return "correct the URL, or copy the whole store there again"
    if location.endswith(HDF5_SUFFIXES):
        return "correct the path, or copy the store again: `cirkd store to-hdf5`"
    return local


class Files(Protocol):
    """Read-only access to the files of a store by key, wherever they lie."""

    location: str

    def read(self, key: str) -> bytes:
        """Return a whole file; FileNotFoundError if there is none."""

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes start..stop of a file, fewer if it ends before."""

    def read_tail(self, key: str, num_bytes: int) -> bytes:
        """Return the last bytes of a file, fewer if it is shorter."""


class LocalFiles:
    """The files of a store in a local folder."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.location = os.fspath(root)

    def read(self, key: str) -> bytes:
        return self._read(key, lambda size: (0, size))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self._read(key, lambda size: (start, stop))

    def read_tail(self, key: str, num_bytes: int) -> bytes:
        return self._read(key, lambda size: (max(0, size - num_bytes), size))

    def _read(self, key: str, extent: Callable[[int], tuple[int, int]]) -> bytes:
        """Read the part of a file that `extent` names by the file's size, and never beyond it."""
        path = os.path.join(self.location, key)
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            start, stop = (min(place, status.st_size) for place in extent(status.st_size))
            file.seek(start)
            return file.read(max(0, stop - start))


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place would otherwise wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def open_files(
    path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None
) -> Files:
    """Return access to the files of a store in a local folder or at a URL."""
    location = os.fspath(path)
    if not is_url(location):
        return LocalFiles(location)
    # Most processes read local stores; they need not load fsspec.
    from store.remote import RemoteFiles

    return RemoteFiles(location, storage_options)


def unit_key(array: ArraySpec, unit: int) -> str:
    """Name the file that holds one unit of one array, relative to the store."""
    return f"{array.name}/c.{unit}" + ".0" * len(array.record_shape)


def metadata_keys(spec: StoreSpec) -> list[str]:
    """Name the metadata files of a store: the group's and every array's."""
    return [METADATA, *(f"{name}/{METADATA}" for name in array_specs(spec))]


def group_attributes(spec: StoreSpec) -> dict[str, Any]:
    """Return the attributes of the store's group, from which `read_spec` reads the spec back."""
    return {
        "kind": KIND,
        "schema_version": spec.schema_version,
        "fingerprint": spec.fingerprint,
        "spec": spec.to_dict(),
    }


def read_spec(files: Files) -> StoreSpec:
    """Read the spec of the store that lies there.

    Raises:
        StoreNotFoundError: There is nothing.
        StoreMismatchError: There is something else, or a store of another schema.
        StoreDamagedError: The metadata cannot be what the writer wrote.
    """
    where = f"{files.location}/{METADATA}"
    try:
        metadata = json.loads(files.read_range(METADATA, 0, MAX_METADATA_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreNotFoundError(
            "no store here",
            where=files.location,
            expected=f"a folder with {METADATA}",
            found="none",
            hint=hint_at(where, RESUME),
        ) from error
    except StoreUnreachableError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise StoreDamagedError(
            "metadata is not JSON",
            where=where,
            expected="JSON",
            found=error,
            hint=hint_at(where, REBUILD),
        ) from error
    return parse_attributes(
        metadata.get("attributes") if isinstance(metadata, dict) else None, where
    )


def parse_attributes(attributes: Any, where: str) -> StoreSpec:
    """Read the spec out of what `group_attributes` wrote.

    Raises:
        StoreMismatchError: Something else wrote them, or a store of another schema.
        StoreDamagedError: They cannot be what was written.
    """
    if not isinstance(attributes, dict) or attributes.get("kind") != KIND:
        raise StoreMismatchError(
            "not a feature store",
            where=where,
            expected=KIND,
            found="something else",
            hint="name the folder, URL or HDF5 file of a store",
        )
    version = attributes.get("schema_version")
    if version not in READABLE_VERSIONS:
        raise StoreMismatchError(
            "store of another schema version",
            where=where,
            expected=" or ".join(map(str, READABLE_VERSIONS)),
            found=version,
            hint="use the release of offline-cirkd that wrote it, or extract anew",
        )
    try:
        spec = StoreSpec.from_dict(attributes["spec"], int(version))
        fingerprint = spec.fingerprint
    except StoreMismatchError as error:
        raise error.at(where, "use the release that wrote the store") from error
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StoreDamagedError(
            "metadata does not describe a store",
            where=where,
            found=error,
            hint=hint_at(where, REBUILD),
        ) from error
    if fingerprint != attributes.get("fingerprint"):
        raise StoreDamagedError(
            "identity and fingerprint disagree",
            where=where,
            expected=attributes.get("fingerprint"),
            found=fingerprint,
            hint=hint_at(where, REBUILD),
        )
    return spec
