"""A manifest of the tiny store, as extraction leaves it."""

from pathlib import Path

import pytest

from store.manifest import Manifest
from store.reader import Reader


@pytest.fixture
def manifest(tiny_store: Reader, tmp_path: Path) -> Path:
    spec = tiny_store.spec
    path = tmp_path / "manifest.json"
    digest = tiny_store.journal.digest
    Manifest(str(tiny_store.path), spec.fingerprint, spec.num_records, digest, 1).write(path)
    return path
