"""Small stores for the tests of this folder, filled by a numpy stand-in for the teacher."""

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.hdf5 import to_hdf5
from store.reader import Reader, open_store

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(scope="session")
def stand_in() -> dict[str, Any]:
    """The functions of stand_in.py: make_spec, make_unit, fill."""
    return runpy.run_path(str(STAND_IN))


@pytest.fixture(scope="session")
def make_spec(stand_in: dict[str, Any]) -> Callable[..., Any]:
    return stand_in["make_spec"]


@pytest.fixture(scope="session")
def make_unit(stand_in: dict[str, Any]) -> Callable[..., Any]:
    return stand_in["make_unit"]


@pytest.fixture(scope="session")
def fill(stand_in: dict[str, Any]) -> Callable[..., str]:
    return stand_in["fill"]


@pytest.fixture(scope="session")
def finished(
    make_spec: Callable[..., Any],
    fill: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished store; only for reading."""
    path = tmp_path_factory.mktemp("finished") / "store"
    fill(path, make_spec())
    return path


@pytest.fixture(scope="session")
def finished_hdf5(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store as an HDF5 file; only for reading."""
    file = tmp_path_factory.mktemp("finished") / "store.h5"
    to_hdf5(finished, file)
    return file


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished store, to be damaged."""
    return shutil.copytree(finished, tmp_path / "store")


@pytest.fixture
def reader(finished: Path) -> Reader:
    return open_store(finished)
