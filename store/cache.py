"""Local copies of the files of a store at a URL."""

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from store.files import PARTIAL, replace_file
from store.layout import Files, LocalFiles

CACHE = "offline-cirkd"
"""The folder below the one that a user names, which holds nothing but copies."""


SLACK = 1 / 64
"""Of the bound: what is removed beyond it."""
SHARES = 8
"""Of what is left: a process takes one before it counts again."""


class CachedFiles:
    """Files that are copied whole into a folder when they are first read, and then read there.

    A copy appears whole or not at all, so any number of processes may share the folder. (The caches
    of fsspec write in place: a second process reads what the first has not finished.) Only the file
    that was written is kept, so damage at its origin does not outlive a repair there. Copies that
    were used longest ago give way where a bound is set.

    Its methods are those of `store.layout.Files`.

    Args:
        files: The store's files.
        folder: Where the copies of this very store are kept, under the same keys.
        sha256: Key -> SHA-256 of the files that may be kept.
        max_bytes: What the copies of this store, and of others beside its folder, may take.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        sha256: Mapping[str, str],
        max_bytes: int | None = None,
    ) -> None:
        self.location = files.location
        self._files, self._copies, self._sha256 = files, LocalFiles(folder), sha256
        self._folder, self._max_bytes = folder, max_bytes
        self._room = 0  # bytes that may be copied before it is counted again what is there
        self._checked: set[str] = set()
        self._full = False

    def read(self, key: str) -> bytes:
        return self._read(key, lambda files: files.read(key))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self._read(key, lambda files: files.read_range(key, start, stop))

    def read_tail(self, key: str, num_bytes: int) -> bytes:
        return self._read(key, lambda files: files.read_tail(key, num_bytes))

    def _read(self, key: str, read: Callable[[Files], bytes]) -> bytes:
        files = self._locate(key)
        try:
            return read(files)
        except FileNotFoundError:
            if files is self._files:
                raise
            # Another process has made room.
            self._checked.discard(key)
            return read(self._files)

    def _locate(self, key: str) -> Files:
        """Return the files that hold this one: the copies, unless what was read is damaged."""
        if key in self._checked:
            self._touch(key)
            return self._copies
        if self._is_right(key):
            return self._copies
        content = b"" if self._full else self._files.read(key)
        if hashlib.sha256(content).hexdigest() != self._sha256.get(key):
            return self._files
        try:
            replace_file(self._folder / key, content)
            self._make_room(len(content))
        except OSError as error:
            warnings.warn(f"reading goes on without further local copies: {error}", stacklevel=2)
            self._full = True
            return self._files
        self._checked.add(key)
        return self._copies

    def _make_room(self, num_bytes: int) -> None:
        """Keep to the bound after a copy; all files are looked at only as often as they must."""
        if self._max_bytes is None:
            return
        self._room -= num_bytes
        if self._room < 0:
            # Other processes share what is left.
            self._room = make_room(self._folder.parent, self._max_bytes) // SHARES

    def _is_right(self, key: str) -> bool:
        """Whether a copy is there as the file was written; it is checked once in a process."""
        try:
            right = hashlib.sha256(self._copies.read(key)).hexdigest() == self._sha256.get(key)
            if right:
                self._touch(key)
                self._checked.add(key)
        except OSError:
            return False
        return right

    def _touch(self, key: str) -> None:
        """Note that a copy is used now: others give way first."""
        with suppress(OSError):  # another process has made room
            os.utime(self._folder / key)


def make_room(folder: Path, max_bytes: int) -> int:
    """Remove the files below a folder that were used longest ago where they exceed `max_bytes`.

    Returns:
        The bytes that are left; after a removal a part of SLACK, so that not every copy needs one.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != PARTIAL]
    used = {path: status for path in files if (status := _status(path)) is not None}
    total = sum(status.st_size for status in used.values())
    bound = max_bytes if total <= max_bytes else max_bytes - int(max_bytes * SLACK)
    for path in sorted(used, key=lambda path: used[path].st_mtime_ns):
        if total <= bound:
            break
        path.unlink(missing_ok=True)
        total -= used[path].st_size
    return max_bytes - total


def _status(path: Path) -> os.stat_result | None:
    """Return a file's status; None if another process has removed it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
