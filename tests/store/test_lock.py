"""The lock: held by one process, and by no copy of it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.errors import StoreLockedError
from store.layout import LOCK
from store.lock import Lock, check_token, is_locked

ROOT = Path(__file__).parents[2]
HOLDER = """
import multiprocessing, os, sys, time
from pathlib import Path
from store.lock import Lock

def live():  # the child says so itself: its parent may be killed before it has begun
    print(os.getpid(), flush=True)
    time.sleep(60)

lock = Lock(Path(sys.argv[1]))
child = multiprocessing.get_context("fork").Process(target=live)
child.start()
child.join()
"""


def test_a_forked_process_does_not_outlive_the_lock_of_its_parent(tmp_path: Path) -> None:
    """As the loader processes of a killed training do."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(StoreLockedError, match=f"process {holder.pid}"):
                Lock(tmp_path)
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # it lives
            with Lock(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_process_leaves_its_parent_the_lock(tmp_path: Path) -> None:
    with Lock(tmp_path) as lock:
        if (child := os.fork()) == 0:
            lock.release()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        check_token(tmp_path, lock.token)
        with pytest.raises(StoreLockedError):
            Lock(tmp_path)


def test_a_glance_at_a_lock_keeps_nobody_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks whether a lock is held holds it for a moment."""
    Lock(tmp_path).release()
    with (tmp_path / LOCK).open("rb") as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda seconds: fcntl.flock(glance, fcntl.LOCK_UN))
        with Lock(tmp_path):
            assert is_locked(tmp_path)


def test_a_disk_without_locks_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No locks available") as refused:
        Lock(tmp_path)
    assert os.listdir("/proc/self/fd") == before
    assert refused.tb is not None  # it keeps the lock alive: nothing was closed by chance


def test_a_token_holds_as_long_as_its_lock(tmp_path: Path) -> None:
    with Lock(tmp_path) as first:
        check_token(tmp_path, first.token)
    with pytest.raises(StoreLockedError, match="does not hold the lock"):
        check_token(tmp_path, first.token)
    with Lock(tmp_path) as second, pytest.raises(StoreLockedError, match=second.token):
        check_token(tmp_path, first.token)
    with pytest.raises(StoreLockedError, match="token None"):
        check_token(tmp_path / "elsewhere", second.token)
