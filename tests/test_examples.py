"""The examples run, on the tiny store."""

import importlib.util
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from store.reader import Reader

ROOT = Path(__file__).parents[1]


def run_example(name: str, *arguments: object) -> None:
    sys.argv = [name, *map(str, arguments)]
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "profiles/tiny.yaml", "params.yaml")


def test_a_store_is_read(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("read_store.py", manifest)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("6 records of sky, road, ")
    assert "features (1, " in lines[1]
    assert "logits (1, 8, 4, 4)" in lines[1]
    assert len((ROOT / "examples/read_store.py").read_text().strip().splitlines()) <= 15


def test_a_store_is_a_torch_dataset(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("read_torch.py", manifest)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # six records, two by two
    assert lines[0] == "(2, 3, 32, 32) (2, 32, 32) (2, 8, 4, 4) (2, 256, 4, 4)"


@pytest.mark.skipif(not importlib.util.find_spec("xarray"), reason="xarray is not here")
def test_a_store_opens_with_xarray(
    manifest: Path, tiny_store: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("read_xarray.py", manifest)
    sizes, first = capsys.readouterr().out.splitlines()
    assert sizes.startswith("{")
    assert "'record': 6" in sizes
    assert "'feature_y': 4" in sizes
    record = tiny_store.read([0], ["key", "image"])
    assert first == f"{record['key'][0]}: mean colour {record['image'][0].mean((1, 2))}"


def test_a_student_is_trained(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("train_student.py", manifest, "r18_ce", 7, "trained")
    assert "log.jsonl, model.pt" in capsys.readouterr().out
    assert '"seed": 7' in Path("trained/log.jsonl").read_text()


def test_a_record_is_drawn(manifest: Path) -> None:
    run_example("plot_record.py", manifest, 1, "record.png")
    assert Path("record.png").read_bytes().startswith(b"\x89PNG")


def test_every_example_is_run() -> None:
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    readers = {"read_store.py", "read_torch.py", "read_xarray.py"}
    assert names == {*readers, "train_student.py", "plot_record.py"}
