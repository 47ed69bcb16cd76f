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

    If the block fails, what was at `path` stays. Readers, and a crash, see the old or the new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The host is named: of another one's processes nobody here knows whether they live.
    writer = f"{socket.gethostname()}-"
    _remove_leftovers(path, writer)
    number = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{writer}{number}{PARTIAL}")
    try:
        yield partial
        sync_path(partial)
        os.replace(partial, path)
        sync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _remove_leftovers(path: Path, writer: str) -> None:
    """Remove what processes of this host that were killed have left beside `path`."""
    start = f"{path.name}.{writer}"
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
    """Write `content`; the file appears by os.replace."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(value: Any, path: Path) -> None:
    """Write indented JSON; the file appears by os.replace."""
    replace_file(path, (json.dumps(value, indent=2) + "\n").encode())


def sync_path(path: Path) -> None:
    """Force a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
