"""The lock of a store: one writer at a time; the kernel releases it when its holder dies."""

import fcntl
import json
import os
import socket
import time
import uuid
import weakref
from pathlib import Path
from typing import IO, Self

from store.errors import StoreLockedError
from store.layout import LOCK

GLANCE_S = 0.1
"""Longer than `is_locked` holds a lock to look: what it looks at is tried for once more."""


class Lock:
    """An exclusive flock on a file that names its holder.

    Not a record lock (`lockf`): that one is lost as soon as this process closes the file anywhere,
    and `check_token` reads it.

    Args:
        root: The folder that is locked.
        wait: Wait for the holder instead of being refused.

    Attributes:
        token: Stands in the file as long as the lock is held, and never again.

    Raises:
        StoreLockedError: Another process holds it; the message names that process and its host.
    """

    def __init__(self, root: Path, wait: bool = False) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._file = open(root / LOCK, "a+")  # noqa: SIM115 (open as long as the lock is held)
        try:
            _take(self._file, wait)
        except BlockingIOError as error:
            found = f"the lock is held by {self._holder()}"
            self._file.close()
            raise StoreLockedError(
                "another process is at work here",
                where=str(root),
                found=found,
                hint="wait for that process, or stop it",
            ) from error
        except BaseException:  # a disk without locks, or Ctrl-C while waiting
            self._file.close()
            raise
        self.token = uuid.uuid4().hex
        try:
            self._name_holder()
        except OSError:
            self.forget()
            raise
        _HELD.add(self)

    def _name_holder(self) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "token": self.token}
        self._file.truncate(0)
        json.dump(holder, self._file)
        self._file.flush()
        os.fsync(self._file.fileno())  # workers on other machines read it

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
        try:
            if not self._file.closed:
                self._file.truncate(0)
        finally:
            self.forget()

    def forget(self) -> None:
        """Close the file; the lock stays with the process that took it, if this is a copy of it."""
        self._file.close()


_HELD: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in _HELD:
        lock.forget()


# A forked process would share the lock, and could outlive its holder: loader processes do.
os.register_at_fork(after_in_child=_forget_all)


def _take(file: IO[str], wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        time.sleep(GLANCE_S)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(root: Path) -> bool:
    """Tell whether a process holds the lock of a folder; nothing is written."""
    try:
        with open(root / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no folder, or never locked
        return False
    return False


def check_token(root: Path, token: str) -> None:
    """Refuse work for a holder of the lock that has released it, or whose lock is another one.

    Raises:
        StoreLockedError: The token does not stand in the lock's file.
    """
    try:
        holder = json.loads((root / LOCK).read_bytes())
    except (FileNotFoundError, ValueError):
        holder = {}
    if holder.get("token") != token:
        raise StoreLockedError(
            "the run that this is written for does not hold the lock",
            where=str(root),
            expected=f"token {token}",
            found=f"token {holder.get('token')}",
            hint="nothing if that run has ended; else give every worker the same disk at this path",
        )
