import errno
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from store.errors import (
    StoreDamagedError,
    StoreError,
    StoreIncompleteError,
    StoreLockedError,
    StoreMismatchError,
    StoreWriteError,
)
from store.layout import JOURNAL, LOCK, METADATA
from store.reader import open_store
from store.schema import SCHEMA_VERSION, StoreSpec
from store.verify import verify
from store.writer import Writer, write_unit

MakeSpec = Callable[..., StoreSpec]
MakeUnit = Callable[[StoreSpec, int], dict[str, np.ndarray]]
Fill = Callable[[Path, StoreSpec], str]
STAND_IN = Path(__file__).with_name("stand_in.py")


def run_stand_in(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = STAND_IN.parents[2]
    return subprocess.run(
        [sys.executable, "-W", "error", STAND_IN, store, *arguments],
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def contents(store: Path) -> Mapping[str, bytes]:
    """Every byte of a store but the lock, which names the last writer."""
    files = (file for file in store.rglob("*") if file.is_file() and file.name != LOCK)
    return {str(file.relative_to(store)): file.read_bytes() for file in files}


def kill_and_resume(store: Path, events: int, limit: int = 20) -> int:
    """Kill a writer before every `events`-th event until the store is finished; count the kills."""
    for kills in range(limit):
        done = run_stand_in(store, str(events))
        if done.returncode == 0:
            return kills
        assert done.returncode == -signal.SIGKILL, done.stderr
    raise AssertionError("the store is never finished")


# A unit costs 61 events (a rename and two fsyncs of each file, and the journal's line), so a writer
# killed before event 75 finishes one each time; one killed before event 60 would never be done.
@pytest.mark.parametrize("events", [75, 140])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(
    finished: Path, tmp_path: Path, events: int
) -> None:
    kills = kill_and_resume(tmp_path / "store", events)
    assert kills >= 1
    assert contents(tmp_path / "store") == contents(finished)


@pytest.mark.slow
def test_kills_at_random_points(
    finished: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    rng, kills, stores = random.Random(0), 0, 0
    while kills < pytestconfig.getoption("--kills"):
        store = tmp_path / str(stores)
        while (done := run_stand_in(store, str(rng.randrange(250)))).returncode:
            assert done.returncode == -signal.SIGKILL, done.stderr
            kills += 1
        assert contents(store) == contents(finished)
        stores += 1
    assert stores > 1


def test_resuming_skips_what_is_finished(
    make_spec: MakeSpec, make_unit: MakeUnit, tmp_path: Path
) -> None:
    spec = make_spec()
    with Writer.open(tmp_path, spec) as writer:
        assert writer.missing_units() == [0, 1, 2]
        writer.write(1, make_unit(spec, 1))
    with Writer.open(tmp_path, spec) as writer:
        assert writer.missing_units() == [0, 2]
        with pytest.raises(StoreIncompleteError, match="2 missing, the first 0"):
            writer.finish()


def test_the_order_of_units_and_who_writes_them_do_not_matter(
    make_spec: MakeSpec, make_unit: MakeUnit, finished: Path, tmp_path: Path
) -> None:
    spec = make_spec()
    with Writer.open(tmp_path, spec) as writer:
        # As remote workers do: files here, the journal's line by the holder of the lock.
        digests = [write_unit(tmp_path, spec, unit, make_unit(spec, unit)) for unit in (2, 0, 1)]
        assert len(writer.missing_units()) == 3
        for digest in digests:
            writer.commit(digest)
        manifest = writer.finish()
    assert manifest.digest == open_store(finished).journal.digest
    assert (manifest.fingerprint, manifest.num_records) == (spec.fingerprint, spec.num_records)
    assert (manifest.path, manifest.schema_version) == (tmp_path.as_posix(), SCHEMA_VERSION)
    written, expected = contents(tmp_path), contents(finished)
    assert {k: v for k, v in written.items() if k != JOURNAL} == {
        k: v for k, v in expected.items() if k != JOURNAL
    }


def test_a_second_writer_is_refused_and_told_who_holds_the_lock(
    make_spec: MakeSpec, make_unit: MakeUnit, tmp_path: Path
) -> None:
    with Writer.open(tmp_path, make_spec()) as writer:
        with pytest.raises(StoreLockedError) as refused:
            Writer.open(tmp_path, make_spec())
        assert f"process {os.getpid()} on {socket.gethostname()}" in str(refused.value)
        other = run_stand_in(tmp_path)
        assert other.returncode == 1
        assert f"process {os.getpid()} on {socket.gethostname()}" in other.stderr
        writer.write(0, make_unit(make_spec(), 0))
    with Writer.open(tmp_path, make_spec()) as writer:
        assert writer.missing_units() == [1, 2]


def test_another_store_is_refused_field_by_field(make_spec: MakeSpec, store: Path) -> None:
    foreign = make_spec(identity={"teacher": {"sha256": "bb"}, "views": {"seed": 0}})
    with pytest.raises(StoreMismatchError) as refused:
        Writer.open(store, foreign)
    assert 'identity.teacher.sha256: expected "bb", found "aa"' in str(refused.value)
    assert 'identity.teacher.architecture: expected nothing, found "stand-in"' in str(refused.value)
    with pytest.raises(StoreMismatchError, match="unit_size: expected 5, found 4"):
        Writer.open(store, make_spec(unit_size=5))


def test_a_remote_worker_refuses_another_store(
    make_spec: MakeSpec, make_unit: MakeUnit, store: Path
) -> None:
    foreign = make_spec(identity={"teacher": "bb"})
    with pytest.raises(StoreMismatchError, match="another store lies here"):
        write_unit(store, foreign, 0, make_unit(foreign, 0))


def test_an_upgrade_does_not_orphan_a_store(make_spec: MakeSpec, store: Path) -> None:
    with Writer.open(store, make_spec(provenance={"numpy": "newer"})) as writer:
        assert writer.missing_units() == []


def test_a_folder_with_other_things_in_it_is_left_alone(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreMismatchError, match=r"thesis\.tex"):
        Writer.open(tmp_path, make_spec())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_programs_arrays_are_left_alone(make_spec: MakeSpec, tmp_path: Path) -> None:
    zarr.open_group(tmp_path, mode="w").create_array("image", data=np.arange(10))
    with pytest.raises(StoreMismatchError, match="image/c"):
        Writer.open(tmp_path, make_spec())
    assert zarr.open_group(tmp_path, mode="r")["image"][9] == 9


@pytest.mark.parametrize("content", [b"", b"{"])
def test_metadata_that_a_killed_writer_left_is_written_again(
    content: bytes, make_spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / METADATA).write_bytes(content)
    with Writer.open(tmp_path, make_spec()) as writer:
        assert writer.missing_units() == list(range(make_spec().num_units))


@pytest.mark.parametrize("content", [None, b"", b"{}"])
@pytest.mark.parametrize("key", [METADATA, f"logits/{METADATA}"])
def test_damaged_metadata_is_written_again(
    key: str, content: bytes | None, make_spec: MakeSpec, finished: Path, store: Path
) -> None:
    (store / key).unlink()
    if content is not None:
        (store / key).write_bytes(content)
    with pytest.raises(StoreError):
        open_store(store)
    with Writer.open(store, make_spec()):
        pass
    assert (store / key).read_bytes() == (finished / key).read_bytes()
    assert verify(store) == []


def test_metadata_that_would_come_out_otherwise_is_left(make_spec: MakeSpec, store: Path) -> None:
    (store / METADATA).write_bytes(b"{}")
    with pytest.raises(StoreError):
        Writer.open(store, make_spec(provenance={"numpy": "newer"}))
    assert (store / METADATA).read_bytes() == b"{}"


def test_a_url_is_for_reading(make_spec: MakeSpec) -> None:
    with pytest.raises(StoreMismatchError, match="local folder"):
        Writer.open("memory://bucket/store", make_spec())


def test_stray_partial_files_are_swept(make_spec: MakeSpec, store: Path) -> None:
    stray = store / "logits" / "c.0.0.0.0123.partial"
    stray.write_bytes(b"torn")
    with Writer.open(store, make_spec()):
        assert not stray.exists()


def test_a_journal_line_that_was_cut_off_is_dropped(make_spec: MakeSpec, store: Path) -> None:
    journal = store / JOURNAL
    whole = journal.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    journal.write_bytes(whole[: -len(last) // 2])
    with Writer.open(store, make_spec()) as writer:
        assert writer.missing_units() == [2]
    assert journal.read_bytes() == whole[: -len(last)]


@pytest.mark.parametrize("line", [0, 1])
def test_a_journal_line_that_was_altered_is_damage(
    make_spec: MakeSpec, store: Path, line: int
) -> None:
    lines = (store / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"logits', b'"lOgits', 1)
    (store / JOURNAL).write_bytes(b"".join(lines))
    with pytest.raises(StoreDamagedError, match=f"line {line + 1}"):
        Writer.open(store, make_spec())


def test_a_full_disk_is_told_and_costs_one_unit(
    make_spec: MakeSpec,
    make_unit: MakeUnit,
    fill: Fill,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, store = make_spec(), tmp_path / "store"
    with Writer.open(store, spec) as writer:
        writer.write(0, make_unit(spec, 0))
        monkeypatch.setattr(os, "replace", _no_space)
        with pytest.raises(StoreWriteError, match="No space left") as refused:
            writer.write(1, make_unit(spec, 1))
        assert isinstance(refused.value, OSError)
        monkeypatch.undo()
        assert writer.missing_units() == [1, 2]
    fill(store, spec)
    assert contents(store) == contents(finished)


def test_a_unit_of_nothing_but_zeros_is_written_all_the_same(
    make_spec: MakeSpec, make_unit: MakeUnit, finished: Path, tmp_path: Path
) -> None:
    spec = make_spec()
    with Writer.open(tmp_path, spec) as writer:
        for unit in writer.missing_units():
            arrays = make_unit(spec, unit)
            zeros = {name: np.zeros_like(values) for name, values in arrays.items()}
            writer.write(unit, {**zeros, "key": arrays["key"]})
    assert contents(tmp_path).keys() == contents(finished).keys()
    assert not open_store(tmp_path).column("image").any()


@pytest.mark.parametrize(
    "changes",
    [{}, {"logits": "top_3", "num_classes": 5, "class_names": tuple("abcde"), "unit_size": 7}],
)
def test_a_unit_is_written_as_zarr_writes_it_byte_for_byte(
    make_spec: MakeSpec, make_unit: MakeUnit, fill: Fill, tmp_path: Path, changes: dict[str, Any]
) -> None:
    spec = make_spec(**changes)
    fill(tmp_path / "ours", spec)
    with Writer.open(tmp_path / "zarrs", spec):
        group = zarr.open_group(tmp_path / "zarrs", mode="r+")
    for unit in range(spec.num_units):
        records = spec.unit_records(unit)
        for name, values in make_unit(spec, unit).items():
            # A file of nothing but fill values is a file all the same.
            array = group[name].with_config({"write_empty_chunks": True})
            array[records.start : records.stop] = values
    ours, zarrs = contents(tmp_path / "ours"), contents(tmp_path / "zarrs")
    assert {name for name in ours if ours[name] != zarrs[name]} == {JOURNAL}


def test_a_revoked_unit_is_missing_until_it_is_written_again(
    make_spec: MakeSpec, fill: Fill, finished: Path, store: Path
) -> None:
    with Writer.open(store, make_spec()) as writer:
        writer.revoke(1)
        assert writer.missing_units() == [1]
    with pytest.raises(StoreIncompleteError, match="1 missing"):
        open_store(store)
    assert fill(store, make_spec()) == open_store(finished).journal.digest


def _without(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in arrays.items() if name != "flip"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without, "other arrays"),
        (lambda a: {**a, "extra": a["flip"]}, "other arrays"),
        (lambda a: {**a, "logits": a["logits"].astype(np.float32)}, "float16"),
        (lambda a: {**a, "logits": a["logits"][:-1]}, "does not fit"),
        (lambda a: {**a, "logits": a["logits"] * np.float16(np.nan)}, "not finite"),
        (lambda a: {**a, "labels": a["labels"] + np.uint8(77)}, "no such class"),
        (lambda a: {**a, "top": a["top"].astype(np.int64) + 2**40}, "does not fit"),
        (lambda a: {**a, "image": a["image"].astype(np.int16) - 1}, "does not fit"),
    ],
)
def test_arrays_that_do_not_fit_the_schema_are_refused_before_a_byte_is_written(
    make_spec: MakeSpec, make_unit: MakeUnit, store: Path, spoil: Any, message: str
) -> None:
    before = contents(store)
    with pytest.raises(StoreMismatchError, match=message):
        write_unit(store, make_spec(), 0, spoil(make_unit(make_spec(), 0)))
    assert contents(store) == before


def test_a_damaged_unit_can_be_written_again(
    make_spec: MakeSpec, fill: Fill, finished: Path, store: Path
) -> None:
    shutil.copy(store / "labels" / "zarr.json", store / "features" / "c.1.0.0.0")
    with Writer.open(store, make_spec()) as writer:
        writer.revoke(1)
    fill(store, make_spec())
    np.testing.assert_array_equal(
        open_store(store).column("features"), open_store(finished).column("features")
    )


def _no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_line_that_did_not_fit_is_taken_back(
    make_spec: MakeSpec, make_unit: MakeUnit, tmp_path: Path
) -> None:
    """A full disk takes a part of a line; the same writer then goes on."""
    spec = make_spec()
    with Writer.open(tmp_path, spec) as writer:
        digest = write_unit(tmp_path, spec, 0, make_unit(spec, 0))
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        room = (tmp_path / JOURNAL).stat().st_size + 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))
        try:
            with pytest.raises(StoreWriteError):
                writer.commit(digest)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        for unit in writer.missing_units():
            writer.write(unit, make_unit(spec, unit))
        writer.finish()
    open_store(tmp_path)
