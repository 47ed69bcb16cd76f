import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import zarr

from store import errors
from store.cache import CachedFiles
from store.encodings.registry import find_encoding
from store.layout import LocalFiles
from store.manifest import Manifest
from store.reader import open_store
from store.schema import StoreSpec
from store.writer import Writer

MakeSpec = Callable[..., StoreSpec]


def test_a_message_has_its_four_parts() -> None:
    error = errors.StoreMismatchError(
        "another store", where="stores/x", expected="aa", found="bb", hint="look again"
    )
    assert str(error).splitlines() == [
        "another store: stores/x",
        "  expected: aa",
        "  found: bb",
        "  what to do: look again",
    ]


def test_parts_that_do_not_apply_are_left_out() -> None:
    assert str(errors.StoreError("no store", found=0)) == "no store\n  found: 0"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.StoreNotFoundError, FileNotFoundError),
        (errors.StoreMismatchError, ValueError),
        (errors.StoreLockedError, BlockingIOError),
        (errors.StoreWriteError, OSError),
        (errors.StoreUnreachableError, OSError),
        (errors.StoreDamagedError, errors.StoreError),
        (errors.StoreIncompleteError, errors.StoreError),
    ],
)
def test_errors_are_the_builtin_a_caller_expects_and_travel_between_processes(
    kind: type[errors.StoreError], builtin: type[Exception]
) -> None:
    error = kind("what", where="where", expected=1, found=2, hint="hint")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, builtin)
    assert (type(copy), copy.parts, str(copy)) == (kind, error.parts, str(error))
    # torch's DataLoader raises a worker's error anew from its message alone.
    assert "what: where" in str(kind(str(error)))
    elsewhere = error.at("there", "look")
    assert (type(elsewhere), elsewhere.parts) == (
        kind,
        error.parts | {"where": "there", "hint": "look"},
    )


def test_every_part_but_the_first_is_named() -> None:
    with pytest.raises(TypeError):
        errors.StoreError("no store", "here")  # type: ignore[misc]


def edit(store: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    metadata = json.loads((store / "zarr.json").read_text())
    change(metadata["attributes"])
    (store / "zarr.json").write_text(json.dumps(metadata))
    return store


def other_hdf5(store: Path) -> Path:
    with h5py.File(store / "other.h5", "w"):
        return store / "other.h5"


def other_zarr(store: Path) -> Path:
    zarr.create_group(store / "other")
    return store / "other"


def text(store: Path) -> Path:
    (store / "text.json").write_text("a letter")
    return store / "text.json"


FAULTS: dict[str, tuple[Callable[[Path], object], type[errors.StoreError], str]] = {
    "unknown encoding": (
        lambda store: find_encoding("uint9"),
        errors.StoreMismatchError,
        "uint8_per_pixel",
    ),
    "a store of an unknown encoding": (
        lambda store: open_store(
            edit(store, lambda a: a["spec"]["features_encoding"].update(name="uint9"))
        ),
        errors.StoreMismatchError,
        "use the release that wrote the store",
    ),
    "newer schema": (
        lambda store: open_store(edit(store, lambda a: a.update(schema_version=99))),
        errors.StoreMismatchError,
        "found: 99",
    ),
    "foreign fingerprint": (
        lambda store: open_store(store, "0123456789abcdef"),
        errors.StoreMismatchError,
        "expected: 0123456789abcdef",
    ),
    "foreign identity": (
        lambda store: open_store(store, {"teacher": "other"}),
        errors.StoreMismatchError,
        'teacher: expected "other", found nothing',
    ),
    "a folder that is no store": (
        lambda store: open_store(other_zarr(store)),
        errors.StoreMismatchError,
        "not a feature store",
    ),
    "a file that is no store": (
        lambda store: open_store(other_hdf5(store)),
        errors.StoreMismatchError,
        "not a feature store",
    ),
    "wrong path": (
        lambda store: open_store(store / "nowhere"),
        errors.StoreNotFoundError,
        "dvc repro",
    ),
    "wrong path of an HDF5 file": (
        lambda store: open_store(store / "nowhere.h5"),
        errors.StoreNotFoundError,
        "to-hdf5",
    ),
    "wrong URL": (
        lambda store: open_store("memory://nowhere"),
        errors.StoreNotFoundError,
        "correct the URL",
    ),
    "an HDF5 file at a URL": (
        lambda store: open_store("memory://bucket/store.h5"),
        errors.StoreMismatchError,
        "copy the file here",
    ),
    "no manifest": (
        lambda store: Manifest.read(store / "nowhere.json"),
        errors.StoreNotFoundError,
        "cirkd store adopt",
    ),
    "another file than a manifest": (
        lambda store: Manifest.read(text(store)),
        errors.StoreMismatchError,
        "not a manifest",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_in_four_parts(store: Path, name: str) -> None:
    provoke, kind, words = FAULTS[name]
    with pytest.raises(kind) as told:
        provoke(store)
    assert type(told.value) is kind
    assert all(part not in (None, "") for part in told.value.parts.values()), told.value.parts
    assert words in str(told.value)


@pytest.mark.parametrize("reason", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_is_told_in_four_parts(
    make_spec: MakeSpec,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "fsync", refuse)
    key = "image/c.0.0.0.0"
    hashes = json.loads((finished / "journal.jsonl").read_text().splitlines()[1])["sha256"]
    cached = CachedFiles(LocalFiles(finished), tmp_path / "copies", {key: hashes["image"]})
    with pytest.raises(errors.StoreWriteError) as told:
        Writer.open(tmp_path / "store", make_spec())
    assert all(part not in (None, "") for part in told.value.parts.values()), told.value.parts
    assert os.strerror(reason) in str(told.value)
    # A cache that cannot be written costs its copies, never the training.
    with pytest.warns(UserWarning, match=os.strerror(reason)):
        assert cached.read(key) == (finished / key).read_bytes()
