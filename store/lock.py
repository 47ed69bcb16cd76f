"""The lock of a store: one writer at a time; the kernel releases it when its holder dies."""

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Self

from store.errors import StoreLockedError
from store.layout import LOCK


class Lock:
    """An exclusive flock on a file that names its holder.

    Args:
        root: The folder that is locked.
        wait: Wait for the holder instead of being refused.

    Raises:
        StoreLockedError: Another process holds it; the message names that process and its host.
    """

    def __init__(self, root: Path, wait: bool = False) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._file = open(root / LOCK, "a+")  # noqa: SIM115 (open as long as the lock is held)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            holder = self._holder()
            self._file.close()
            raise StoreLockedError(
                "another process is at work here",
                where=str(root),
                found=f"the lock is held by {holder}",
                hint="wait for that process, or stop it",
            ) from error
        self._file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, self._file)
        self._file.flush()

    def _holder(self) -> str:
        self._file.seek(0)
        try:
            holder = json.load(self._file)
            return f"process {holder['pid']} on {holder['host']}"
        except (ValueError, KeyError, TypeError):
            return "a process that has not named itself yet"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock (the file stays: if it were removed, two could hold one)."""
        self._file.close()
