"""Reading ahead: errors arrive as they were raised, and a dead process has a name."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from pipeline.loading.workers import LoaderError, open_loader
from store.errors import StoreDamagedError


class Numbers(Dataset[int]):
    """Doubles; one of them is damaged, another kills the process that reads it."""

    def __init__(self, damaged: int = -1, deadly: int = -1) -> None:
        self._damaged, self._deadly = damaged, deadly

    def __getitem__(self, item: int) -> int:
        if item == self._damaged:
            raise StoreDamagedError("a file is missing", where="logits/c.0", hint="repair it")
        if item == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * item


def load(dataset: Dataset[Any], num_workers: int) -> list[Any]:
    return list(open_loader(dataset, range(4), 0, num_workers, pin_memory=False))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_items_come_in_order(num_workers: int) -> None:
    assert load(Numbers(), num_workers) == [0, 2, 4, 6]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_crosses_from_a_worker_as_it_was_raised(num_workers: int) -> None:
    with pytest.raises(StoreDamagedError) as caught:
        load(Numbers(damaged=2), num_workers)
    assert caught.value.where == "logits/c.0"
    assert caught.value.hint == "repair it"


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(LoaderError, match=r"DataLoader worker.*--workers 1"):
        load(Numbers(deadly=1), 1)


ABANDONED = """
import time
from torch.utils.data import Dataset
from pipeline.loading.workers import open_loader

class Stuck(Dataset):
    def __getitem__(self, item):
        time.sleep(3600 * item)
        return item

if __name__ == "__main__":
    abandoned = open_loader(Stuck(), range(4), 0, 2, pin_memory=False)
    print(next(abandoned))
"""


def test_a_process_ends_though_its_workers_hang(tmp_path: Path) -> None:
    script = tmp_path / "abandoned.py"
    script.write_text(ABANDONED)
    command, path = [sys.executable, str(script)], str(Path(__file__).parents[3])
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, timeout=60, check=True, capture_output=True
    )
    assert ended.stdout == b"0\n"
