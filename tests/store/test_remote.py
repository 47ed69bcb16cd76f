import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from store import cache
from store.cache import CACHE
from store.errors import StoreDamagedError, StoreNotFoundError, StoreUnreachableError
from store.reader import open_store
from store.verify import verify


@pytest.fixture
def url(finished: Path) -> Iterator[str]:
    """The finished store in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(finished), "/bucket/store", recursive=True)
    yield "memory://bucket/store"
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("chain", ["", "filecache::"])
def test_a_url_reads_like_a_folder(url: str, chain: str, finished: Path, tmp_path: Path) -> None:
    options = {"filecache": {"cache_storage": str(tmp_path)}} if chain else None
    local = open_store(finished)
    remote = pickle.loads(pickle.dumps(open_store(chain + url, local.spec.identity, options)))
    assert remote.spec == local.spec
    for name in local.arrays:
        np.testing.assert_array_equal(
            remote.read([7, 0, 7], [name])[name], local.column(name)[[7, 0, 7]]
        )
    assert any(tmp_path.iterdir()) == bool(chain)


def test_damage_at_a_url_is_found(url: str) -> None:
    assert verify(url) == []
    memory = fsspec.filesystem("memory")
    memory.rm_file("/bucket/store/image/c.1.0.0.0")
    content = memory.cat_file("/bucket/store/logits/c.0.0.0.0")
    memory.pipe_file("/bucket/store/logits/c.0.0.0.0", b"?" + content[1:])
    assert [(finding.array, finding.unit) for finding in verify(url)] == [
        ("logits", 0),
        ("image", 1),
    ]
    with pytest.raises(StoreDamagedError, match="image of record 4, key 'train/é4'"):
        open_store(url).column("image")


def test_no_store_at_a_url(url: str) -> None:
    with pytest.raises(StoreNotFoundError):
        open_store("memory://bucket/nowhere")


class QuietHandler(SimpleHTTPRequestHandler):
    """Knows nothing of byte ranges, as the plainest servers do."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(finished: Path) -> Iterator[str]:
    """The finished store behind a web server on this machine."""
    handler = partial(QuietHandler, directory=str(finished.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/store"
        server.shutdown()
        thread.join()


def test_a_plain_web_server_will_do(web: str, finished: Path) -> None:
    assert verify(web) == []
    local, remote = open_store(finished), open_store(web)
    for name in local.arrays:
        np.testing.assert_array_equal(remote.read([9, 2], [name])[name], local.column(name)[[9, 2]])
    with pytest.raises(StoreNotFoundError):
        open_store(f"{web}/nowhere")


def test_a_cache_keeps_what_was_read_and_spares_the_origin(url: str, tmp_path: Path) -> None:
    reader = open_store(url, cache=tmp_path)
    expected = reader.read([5], ["image", "key"])
    copies = tmp_path / CACHE / reader.journal.digest
    assert sorted(str(file.relative_to(copies)) for file in copies.rglob("c.*")) == [
        "image/c.1.0.0.0",
        "key/c.1",
    ]
    memory = fsspec.filesystem("memory")
    memory.rm("/bucket/store/image/c.1.0.0.0")
    again = pickle.loads(pickle.dumps(open_store(url, cache=tmp_path)))
    assert (again.read([5], ["image"])["image"] == expected["image"]).all()
    # The origin is what is verified, whatever lies in a cache.
    assert [finding.file for finding in verify(url)] == ["image/c.1.0.0.0"]


def test_damage_at_the_origin_is_not_kept(url: str, tmp_path: Path) -> None:
    memory, key = fsspec.filesystem("memory"), "/bucket/store/image/c.1.0.0.0"
    whole = memory.cat_file(key)
    memory.pipe_file(key, bytes(byte ^ 1 for byte in whole))
    reader = open_store(url, cache=tmp_path)
    with pytest.raises(StoreDamagedError, match="copy the whole store there again"):
        reader.read([5], ["image"])
    memory.pipe_file(key, whole)
    reader.read([5], ["image"])


def test_a_damaged_copy_is_fetched_again(url: str, tmp_path: Path) -> None:
    expected = open_store(url, cache=tmp_path).column("image")
    (copy,) = tmp_path.rglob("c.1.0.0.0")
    whole = copy.read_bytes()
    copy.write_bytes(b"?" + whole[1:])
    assert (open_store(url, cache=tmp_path).column("image") == expected).all()
    assert copy.read_bytes() == whole


def test_copies_used_longest_ago_give_way(url: str, tmp_path: Path) -> None:
    whole = open_store(url, cache=tmp_path)
    expected = {name: whole.column(name) for name in ("image", "labels")}
    copies = {path.name: path for path in tmp_path.rglob("c.*") if "image" in path.parts}
    assert len(copies) == 3
    for age, path in enumerate(tmp_path.rglob("c.*")):
        os.utime(path, (1000 + age, 1000 + age))
    os.utime(copies["c.1.0.0.0"], (2000, 2000))
    size = copies["c.1.0.0.0"].stat().st_size
    bound = 2 * size + size // 2
    reader = open_store(url, cache=tmp_path, cache_bytes=bound)
    copies["c.0.0.0.0"].unlink()
    assert (reader.read([0], ["image"])["image"] == expected["image"][:1]).all()
    kept = {path.name for path in tmp_path.rglob("c.*") if "image" in path.parts}
    assert kept == {"c.0.0.0.0", "c.1.0.0.0"}
    # A reader goes on where a copy that it knows of is gone.
    copies["c.0.0.0.0"].unlink()
    assert (reader.read([0], ["image"])["image"] == expected["image"][:1]).all()
    for name, column in expected.items():
        np.testing.assert_array_equal(reader.column(name), column)
    assert sum(path.stat().st_size for path in tmp_path.rglob("c.*")) <= bound


def test_a_copy_that_is_read_again_stays(url: str, tmp_path: Path) -> None:
    whole = open_store(url, cache=tmp_path)
    whole.column("image")
    sizes = [path.stat().st_size for path in tmp_path.rglob("c.*")]
    for path in tmp_path.rglob("c.*"):
        path.unlink()
    reader = open_store(url, cache=tmp_path, cache_bytes=sum(sizes) - 1)
    for record in (0, 5, 0, 8):  # of three units
        reader.read([record], ["image"])
        time.sleep(0.01)
    assert {path.name for path in tmp_path.rglob("c.*")} == {"c.0.0.0.0", "c.2.0.0.0"}


def test_files_are_counted_only_where_the_bound_may_be_met(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred thousand copies each would walk over all the others."""
    counted = []
    count = cache.make_room

    def watch(folder: Path, max_bytes: int) -> int:
        counted.append(folder)
        return count(folder, max_bytes)

    monkeypatch.setattr(cache, "make_room", watch)
    reader = open_store(url, cache=tmp_path, cache_bytes=10**9)
    reader.column("image")
    reader.column("labels")
    assert len(list(tmp_path.rglob("c.*"))) > 3
    assert len(counted) == 1


def test_room_is_made_among_the_copies_alone(url: str, tmp_path: Path) -> None:
    own = tmp_path / "thesis/chapter.tex"
    own.parent.mkdir()
    own.write_text("years of work" * 1000)
    os.utime(own, (1, 1))
    open_store(url, cache=tmp_path, cache_bytes=1).column("image")
    assert own.exists()
    assert not list(tmp_path.rglob("c.*"))


def test_a_server_that_tells_no_size_is_read(
    url: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "size", lambda self, path: None)
    expected = open_store(finished).column("image")
    np.testing.assert_array_equal(open_store(url).column("image"), expected)


def test_a_local_store_is_not_copied(finished: Path, tmp_path: Path) -> None:
    open_store(finished, cache=tmp_path).column("image")
    assert not list(tmp_path.iterdir())


def test_processes_share_a_cache(web: str, finished: Path, tmp_path: Path) -> None:
    reader = open_store(web, cache=tmp_path)
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        columns = list(pool.map(reader.column, ["image"] * 6))
    for column in columns:
        np.testing.assert_array_equal(column, open_store(finished).column("image"))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_package_that_is_missing_is_named() -> None:
    fsspec.register_implementation(
        "nowhere", "no_such_package.Files", True, "Install no_such_package"
    )
    with pytest.raises(StoreUnreachableError, match="Install no_such_package") as told:
        open_store("nowhere://bucket/store")
    assert "pip install s3fs" in str(told.value)
    with pytest.raises(StoreUnreachableError, match="Protocol not known: gopher"):
        open_store("gopher://bucket/store")
