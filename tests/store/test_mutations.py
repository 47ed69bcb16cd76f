"""Whatever stands in the JSON of a store, verifying lists findings or names a fault, and ends."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import StoreDamagedError, StoreError
from store.journal import append_entry, read_journal
from store.layout import JOURNAL, METADATA, LocalFiles
from store.manifest import Manifest
from store.reader import open_store
from store.schema import StoreSpec
from store.verify import verify
from store.writer import Writer

MANIFEST = "manifest.json"
FILES = [METADATA, f"image/{METADATA}", f"key/{METADATA}", JOURNAL, MANIFEST]
DEEP = "[" * 100_000 + "]" * 100_000

scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 1, 2, 2**31, 2**63, 10**12, 10**30, 0.5, 1e308, float("inf")])
    | st.sampled_from(["", "1", "image", "/etc/passwd", "../../x", "\ud800", "memory://x", "a\0b"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def places(value: Any, trail: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the path of every value in JSON."""
    below: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        below = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [trail, *(place for key, one in below for place in places(one, (*trail, key)))]


def mutate(value: Any, trail: tuple[Any, ...], change: str, new: Any) -> Any:
    """Return JSON with one value replaced, removed, or given another beside it."""
    if not trail:
        return new
    parent = value
    for key in trail[:-1]:
        parent = parent[key]
    if change == "remove":
        del parent[trail[-1]]
    elif change == "add" and isinstance(parent, dict):
        parent["one more"] = new
    elif change == "add":
        parent.append(new)
    else:
        parent[trail[-1]] = new
    return value


def write_journal(store: Path, entries: list[Any]) -> None:
    """Write lines whose checksums are right, so that nothing but their meaning can tell."""
    (store / JOURNAL).write_bytes(b"")
    for entry in entries:
        if isinstance(entry, dict):
            append_entry(store, {key: entry[key] for key in entry if key != "crc32"})
        else:
            with open(store / JOURNAL, "ab") as file:
                file.write(json.dumps(entry).encode() + b"\n")


def read_entries(store: Path) -> list[Any]:
    return [json.loads(line) for line in (store / JOURNAL).read_bytes().splitlines()]


def write_metadata(store: Path, file: str, metadata: Any, *, announced: bool) -> None:
    """Write a metadata file; `announced`, the journal's header says that it was written so."""
    (store / file).write_text(json.dumps(metadata))
    if announced:
        header, *units = read_entries(store)
        header["metadata"][file] = hashlib.sha256((store / file).read_bytes()).hexdigest()
        write_journal(store, [header, *units])


@pytest.fixture(scope="module")
def copy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for this file alone; every example leaves it whole."""
    store = shutil.copytree(finished, tmp_path_factory.mktemp("mutations") / "store")
    reader = open_store(store)
    Manifest.of(reader.path, reader.spec, reader.journal).write(store / MANIFEST)
    return store


def examine(store: Path) -> bool:
    """Whether a store is said to be whole."""
    try:
        manifest = Manifest.read(store / MANIFEST)
        whole = not verify(manifest.path, digest=manifest.digest)
    except StoreError:
        whole = False
    try:
        open_store(store)
    except StoreError:
        return False
    return whole


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_the_json_of_a_store_is_verifying_ends_in_findings(
    copy: Path, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(FILES))
    announced = file.endswith(METADATA) and data.draw(st.booleans())
    before = {name: (copy / name).read_bytes() for name in FILES}
    old = read_entries(copy) if file == JOURNAL else json.loads(before[file])
    trail = data.draw(st.sampled_from(places(old)))
    change = data.draw(st.sampled_from(["replace", "remove", "add"]))
    new = mutate(old, trail, change, data.draw(values))
    try:
        try:
            if file == JOURNAL:
                write_journal(copy, new if isinstance(new, list) else [new])
            else:
                write_metadata(copy, file, new, announced=announced)
        except ValueError:
            return  # nothing that the encoder of JSON can write
        changed = (copy / file).read_bytes() != before[file]
        whole = examine(copy)
        # Of an announced change, or of a manifest's other fields, nobody else knows.
        assert not (whole and changed) or announced or file in (MANIFEST, JOURNAL)
    finally:
        for name, content in before.items():
            (copy / name).write_bytes(content)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [DEEP, "", "{}", "[]", "null", "\ufeff{}", "9" * 9999])
def test_no_text_in_the_place_of_json_is_more_than_a_finding(
    store: Path, file: str, content: str
) -> None:
    reader = open_store(store)
    Manifest.of(reader.path, reader.spec, reader.journal).write(store / MANIFEST)
    (store / file).write_text(content + "\n")
    assert not examine(store)


SIZES: list[dict[str, Any]] = [
    {"num_images": 10**12},
    {"num_images": 2**31 - 1},
    {"num_images": 2**31 - 1, "unit_size": 2**31 - 1},
    {"unit_size": 10**12},
    {"feature_channels": 2**31 - 1},
    {"height": 2**30, "feature_height": 2**27},
    {"num_classes": 3.0},
    {"class_names": [1, 2, 3]},
    {"targets": "logits"},
    {"identity": [], "provenance": None},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("announced", [False, True])
def test_absurd_sizes_are_findings_before_anything_of_that_size_is_made(
    store: Path, sizes: dict[str, Any], announced: bool
) -> None:
    metadata = json.loads((store / METADATA).read_text())
    metadata["attributes"]["spec"].update(sizes)
    write_metadata(store, METADATA, metadata, announced=announced)
    with contextlib.suppress(StoreError):
        assert verify(store)


def test_an_empty_header_does_not_pass_altered_metadata(store: Path) -> None:
    _, *units = read_entries(store)
    write_journal(store, [{"metadata": {}}, *units])
    assert {METADATA, f"image/{METADATA}"} <= {finding.file for finding in verify(store)}
    with pytest.raises(StoreDamagedError, match="metadata was altered"):
        open_store(store)


@pytest.mark.parametrize("key", ["/etc/passwd", "../store/image/zarr.json", "/dev/zero"])
def test_the_header_names_no_file_to_open(
    store: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, *units = read_entries(store)
    header["metadata"][key] = "0" * 64
    write_journal(store, [header, *units])
    opened, read = [], LocalFiles.read_range

    def note(files: LocalFiles, key: str, start: int, stop: int) -> bytes:
        opened.append(key)
        return read(files, key, start, stop)

    monkeypatch.setattr(LocalFiles, "read_range", note)
    assert JOURNAL in {finding.file for finding in verify(store)}
    with pytest.raises(StoreDamagedError, match="metadata was altered"):
        open_store(store)
    assert opened
    assert key not in opened


def rename_unit(entry: dict[str, Any]) -> None:
    entry["unit"] = 99


def forget_array(entry: dict[str, Any]) -> None:
    del entry["sha256"]["image"]


@pytest.mark.parametrize("change", [rename_unit, forget_array])
def test_a_unit_that_the_store_cannot_have_is_not_a_finished_one(
    make_spec: Callable[..., StoreSpec], store: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    entries = read_entries(store)
    change(entries[1])
    write_journal(store, entries)
    assert [finding.file for finding in verify(store)] == [JOURNAL]
    for use in (open_store, lambda path: Writer.open(path, make_spec())):
        with pytest.raises(StoreDamagedError, match="unit that the store cannot have"):
            use(store)
    assert len(read_journal(LocalFiles(store)).units) == 3
