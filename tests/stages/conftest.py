"""A manifest of the tiny store, as extraction leaves it."""

from pathlib import Path

import pytest

from store.manifest import Manifest
from store.reader import Reader


@pytest.fixture
def manifest(tiny_store: Reader, tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    Manifest.of(tiny_store.path, tiny_store.spec, tiny_store.journal).write(path)
    return path
