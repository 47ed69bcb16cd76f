"""Local copies of the files of a store at a URL."""

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from store.files import replace_file
from store.layout import Files, LocalFiles


class CachedFiles:
    """Files that are copied whole into a folder when they are first read, and then read there.

    A copy appears whole or not at all, so any number of processes may share the folder. (The caches
    of fsspec write in place: a second process reads what the first has not finished.) Only the file
    that was written is kept, so damage at its origin does not outlive a repair there.

    Its methods are those of `store.layout.Files`.

    Args:
        files: The store's files.
        folder: Where the copies of this very store are kept, under the same keys.
        sha256: Key -> SHA-256 of the files that may be kept.
    """

    def __init__(
        self, files: Files, folder: str | os.PathLike[str], sha256: Mapping[str, str]
    ) -> None:
        self.location = files.location
        self._files, self._copies, self._sha256 = files, LocalFiles(folder), sha256
        self._checked: set[str] = set()
        self._full = False

    def read(self, key: str) -> bytes:
        return self._locate(key).read(key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self._locate(key).read_range(key, start, stop)

    def read_tail(self, key: str, num_bytes: int) -> bytes:
        return self._locate(key).read_tail(key, num_bytes)

    def _locate(self, key: str) -> Files:
        """Return the files that hold this one: the copies, unless what was read is damaged."""
        if key in self._checked or self._is_right(key):
            return self._copies
        content = b"" if self._full else self._files.read(key)
        if hashlib.sha256(content).hexdigest() != self._sha256.get(key):
            return self._files
        try:
            replace_file(Path(self._copies.location, key), content)
        except OSError as error:
            warnings.warn(f"reading goes on without further local copies: {error}", stacklevel=2)
            self._full = True
            return self._files
        self._checked.add(key)
        return self._copies

    def _is_right(self, key: str) -> bool:
        """Whether a copy is there as the file was written; it is checked once in a process."""
        try:
            right = hashlib.sha256(self._copies.read(key)).hexdigest() == self._sha256.get(key)
        except FileNotFoundError:
            return False
        if right:
            self._checked.add(key)
        return right
