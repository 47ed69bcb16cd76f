from pathlib import Path

import pytest

from store.errors import StoreMismatchError, StoreNotFoundError
from store.manifest import Manifest

MANIFEST = Manifest("artifacts/stores/ab", "ab", 10, "cd", 1)


def test_a_manifest_is_read_as_it_was_written_and_has_no_clock(tmp_path: Path) -> None:
    path = tmp_path / "manifests" / "store.json"
    MANIFEST.write(path)
    first = path.read_bytes()
    MANIFEST.write(path)
    assert path.read_bytes() == first
    assert Manifest.read(path) == MANIFEST
    assert [file.name for file in path.parent.iterdir()] == ["store.json"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"path": "x"}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "store.json"
    with pytest.raises(StoreNotFoundError, match="dvc repro"):
        Manifest.read(path)
    path.write_text(content)
    with pytest.raises(StoreMismatchError, match="not a manifest"):
        Manifest.read(path)
