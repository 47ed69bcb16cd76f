import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from store.errors import StoreDamagedError, StoreNotFoundError
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
