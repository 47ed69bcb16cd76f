"""Banks: every embedding of the store once, class by class, built safely by whoever comes first."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from store.bank import open_bank
from store.errors import StoreWriteError
from store.reader import Reader, open_store
from store.writer import Writer

ROOT = Path(__file__).parents[2]
KINDS = ("pixel", "region")
BUILD = """
import sys
from pathlib import Path
from store.bank import open_bank
from store.reader import open_store
print(len(open_bank(open_store(sys.argv[1]), Path(sys.argv[2]), "pixel")))
"""
# The same, but killed when the rows are written and only the file's name is missing.
KILLED = "import os; os.replace = lambda *paths: os.kill(os.getpid(), 9)\n" + BUILD


def naive(reader: Reader, kind: str) -> list[tuple[int, int, list[float]]]:
    """Class, record and embedding of every stored embedding, in the order of a bank."""
    rows = []
    for record in range(len(reader)):
        if kind == "pixel":
            classes = reader.column("pixel_sample_class")[record]
            embeddings = reader.column("pixel_sample")[record]
        else:
            present = reader.column("region_pixels")[record] > 0
            classes = np.where(present, np.arange(len(present)), 255)
            embeddings = reader.column("region_center")[record]
        rows += [
            (int(c), record, embedding.tolist())
            for c, embedding in zip(classes, embeddings, strict=True)
            if c != 255
        ]
    return sorted(rows, key=lambda row: row[:2])


def listed(bank: np.ndarray) -> list[tuple[int, int, list[float]]]:
    return [(int(c), int(record), embedding.tolist()) for c, record, embedding in bank]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bank_is_every_embedding_by_class(reader: Reader, kind: str, tmp_path: Path) -> None:
    *rows, none = listed(open_bank(reader, tmp_path, kind))
    assert rows == naive(reader, kind)
    assert none == (reader.spec.num_classes, -1, [0.0] * reader.spec.feature_channels)


def test_the_bank_of_the_first_views_is_not_the_stores(reader: Reader, tmp_path: Path) -> None:
    part = reader.first_views(1)
    assert listed(open_bank(part, tmp_path, "pixel"))[:-1] == naive(part, "pixel")
    assert listed(open_bank(reader, tmp_path, "pixel"))[:-1] == naive(reader, "pixel")
    assert listed(open_bank(part, tmp_path, "pixel"))[:-1] == naive(part, "pixel")


def test_it_is_built_once_and_cannot_be_written(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_bank(reader, tmp_path, "pixel")
    monkeypatch.setattr(Reader, "read", lambda *arguments: pytest.fail("read again"))
    again = open_bank(reader, tmp_path, "pixel")
    assert isinstance(again.base, np.memmap)
    assert (first == again).all()
    with pytest.raises(ValueError, match="read-only"):
        again["record"][0] = 3


def test_a_store_at_a_url_gives_the_same_bank(finished: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(finished), "/bank-test", recursive=True)
    for kind in KINDS:
        here = open_bank(open_store(finished), tmp_path / "here", kind)
        there = open_bank(open_store("memory://bank-test"), tmp_path / "there", kind)
        assert (here == there).all()
    memory.rm("/bank-test", recursive=True)


def test_a_killed_build_leaves_no_bank_and_the_next_one_clears_up(
    finished: Path, tmp_path: Path
) -> None:
    killed = start(KILLED, finished, tmp_path)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.rglob("pixel*")] == [".partial"]
    reader = open_store(finished)
    assert listed(open_bank(reader, tmp_path, "pixel"))[:-1] == naive(reader, "pixel")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [f"pixel-{len(reader)}.npy"]


def test_processes_may_build_at_once(finished: Path, tmp_path: Path) -> None:
    builders = [start(BUILD, finished, tmp_path) for _ in range(3)]
    said = {builder.communicate(timeout=60)[0] for builder in builders}
    assert {builder.returncode for builder in builders} == {0}
    assert said == {f"{len(naive(open_store(finished), 'pixel')) + 1}\n"}


def flip_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        flip_middle,
        lambda file: file[:-9],
        lambda file: file[:-4],
        lambda _: b"",
        lambda _: b"x" * 99,
    ],
    ids=["flipped", "cut", "of before", "empty", "other"],
)
def test_a_bank_that_is_not_whole_is_built_again(
    reader: Reader, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    open_bank(reader, tmp_path, "region")
    (path,) = tmp_path.rglob("region-*.npy")
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    assert listed(open_bank(reader, tmp_path, "region"))[:-1] == naive(reader, "region")
    assert path.read_bytes() == whole


def test_another_kind_of_rows_is_no_bank(reader: Reader, tmp_path: Path) -> None:
    open_bank(reader, tmp_path, "region")
    (path,) = tmp_path.rglob("region-*.npy")
    np.save(path, np.zeros(3))
    assert listed(open_bank(reader, tmp_path, "region"))[:-1] == naive(reader, "region")


def test_a_full_disk_is_a_message_before_a_row_is_written(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(
        StoreWriteError, match=r"pixel-\d+\.npy(.|\n)*No space left(.|\n)*make room"
    ):
        open_bank(reader, tmp_path, "pixel")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def test_a_bank_needs_no_call_that_macos_lacks(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    assert listed(open_bank(reader, tmp_path, "pixel"))[:-1] == naive(reader, "pixel")


def test_a_class_and_a_store_may_be_empty(
    make_spec: Callable, make_unit: Callable, tmp_path: Path
) -> None:
    spec = make_spec()
    with Writer.open(tmp_path / "store", spec) as writer:
        for unit in writer.missing_units():
            arrays = make_unit(spec, unit)
            arrays["pixel_sample_class"][:] = 255
            writer.write(unit, arrays)
    bank = open_bank(open_store(tmp_path / "store"), tmp_path, "pixel")
    assert bank["record"].tolist() == [-1]
