"""Files that appear whole or not at all, and are on the disk when they have appeared."""

from __future__ import annotations

import glob
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""Ends the name of a file that is still being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what lies there takes `path`'s place at the end.

    If the block fails, what was at `path` stays. Readers, and a crash, see the old or the new. What
    killed processes of this host have left of earlier ones is removed.
    """
    _remove_leftovers(path)
    with _replacing(path) as partial:
        yield partial


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    number = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{_host()}{number}{PARTIAL}")
    try:
        yield partial
        sync_path(partial)
        os.replace(partial, path)
        sync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _host() -> str:
    """Name the host: of another one's processes nobody here knows whether they live."""
    return f"{socket.gethostname()}-"


def _remove_leftovers(path: Path) -> None:
    start = f"{path.name}.{_host()}"
    for partial in path.parent.glob(f"{glob.escape(start)}*{PARTIAL}"):
        pid = partial.name.removeprefix(start).partition("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            partial.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def remove_folder(path: Path) -> None:
    """Remove a folder that stands where a file belongs, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content`; the file appears by os.replace.

    Leftovers stay: to list a folder for each file of a store is dear; its writer does it once.
    """
    with _replacing(path) as partial:
        partial.write_bytes(content)


def write_json(value: Any, path: Path) -> None:
    """Write indented JSON; the file appears by os.replace."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@contextmanager
def reading(path: Path, what: str, hint: str) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read and understood into an error that names it.

    Args:
        path: the file.
        what: what it should be.
        hint: what to do if it is not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not `what`.
    """
    if path.exists() and not path.is_file():  # reading a FIFO would wait for ever
        raise ValueError(f"{path}: expected {what}; found a folder, or what is no file; {hint}")
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; {hint}") from None
    except Exception as error:  # json, pickle, zip and torch raise a dozen kinds of them
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it names what the system refused
        reason, name = str(error), type(error).__name__
        if "\n" in reason or not reason:  # torch's, which advises to run the file's code
            reason = f"something else ({name})"
        elif not isinstance(error, ValueError):
            reason = f"something else ({name}: {reason})"
        raise ValueError(f"{path}: expected {what}; found {reason:.300}; {hint}") from error


def sync_path(path: Path) -> None:
    """Force a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
