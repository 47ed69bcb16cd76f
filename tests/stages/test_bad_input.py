"""Whatever a command is given, it answers in words, and leaves every file as it was."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from pipeline.config.params import Params
from pipeline.datasets.index import Index
from stages.cli import main
from store.files import write_json
from store.manifest import Manifest
from store.reader import Reader

ROOT = Path(__file__).parents[2]
INDEX = "artifacts/datasets/tiny/index.json"
TEACHER = "artifacts/teachers/tiny.pt"
CARD = "artifacts/teachers/tiny.json"
MANIFEST = "artifacts/manifests/tiny.json"
PROFILE = "artifacts/profiles/tiny"
BAD = "bad"
CPU = ("--device", "cpu")


MANIFEST_FIELDS = tuple(Manifest.__dataclass_fields__)


class Code:
    """An object that has a folder made when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("PWNED",)


CONTENTS: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "code": lambda path: torch.save({"state_dict": Code()}, path),
    "cut": lambda path: path.write_text('{"version": 1, "name": '),
    "list": lambda path: path.write_text("[]"),
    "number": lambda path: path.write_text("1"),
    "types": lambda path: path.write_text(json.dumps({key: [] for key in MANIFEST_FIELDS})),
    "object": lambda path: path.write_text('{"version": 1}'),
    "other text": lambda path: path.write_text("version: [1"),
}

# command -> its words; BAD takes the place of the file that is wrong.
READERS: dict[str, tuple[str, ...]] = {
    "fingerprint --params": ("fingerprint", "out.json", "--params", BAD),
    "prepare FINGERPRINT": ("prepare", BAD, "out"),
    "prepare --params": ("prepare", "fingerprint.json", "out", "--params", BAD),
    "prepare --check": ("prepare", "--check", "--params", BAD),
    "teacher INDEX": ("teacher", BAD, "out.pt", *CPU),
    "extract INDEX": ("extract", BAD, TEACHER, "out.json", *CPU),
    "extract TEACHER": ("extract", INDEX, f"{BAD}.pt", "out.json", *CPU),
    "audit INDEX": ("audit", BAD, TEACHER, MANIFEST, "out.json", *CPU),
    "audit MANIFEST": ("audit", INDEX, TEACHER, BAD, "out.json", *CPU),
    "train MANIFEST": ("train", "r18_ce", BAD, "out", *CPU),
    "train --params": ("train", "r18_ce", MANIFEST, "out", "--params", BAD),
    "evaluate INDEX": ("evaluate", BAD, "student.pt", "out.json", *CPU),
    "evaluate STUDENT": ("evaluate", INDEX, BAD, "out.json", *CPU),
    "predict STUDENT": ("predict", BAD, INDEX, "-o", "out", *CPU),
    "predict STUDENT.onnx": ("predict", f"{BAD}.onnx", INDEX, "-o", "out", *CPU),
    "pack STUDENT.zip": ("pack", f"{BAD}.zip", "-o", "out"),
    "report --params": ("report", PROFILE, "--params", BAD),
    "profile show": ("profile", "show", "--params", BAD),
    "store info": ("store", "info", BAD),
    "store verify": ("store", "verify", BAD),
    "store verify --index": (
        *("store", "verify", MANIFEST, "--spot", "1", *CPU),
        *("--index", BAD, "--teacher", TEACHER),
    ),
    "store adopt": ("store", "adopt", BAD, "out.json"),
    "store repair": ("store", "repair", INDEX, TEACHER, BAD, *CPU),
    "store to-hdf5": ("store", "to-hdf5", BAD, "out.h5"),
    "store from-hdf5": ("store", "from-hdf5", BAD, "out.json", "--stores", "out"),
    "benchmark store": ("benchmark", "store", BAD, TEACHER, "--out", "out.json", *CPU),
    "benchmark subspace": ("benchmark", "subspace", INDEX, BAD, "--out", "out.json", *CPU),
    "benchmark num-views": ("benchmark", "num-views", BAD, TEACHER, "--out", "out.json", *CPU),
}

# A file of the project that is wrong where it lies -> the words of a command that reads it.
PLACES: dict[str, tuple[str, ...]] = {
    INDEX: ("store", "plan", "r18_ce", *CPU),
    TEACHER: ("extract", INDEX, TEACHER, "out.json", *CPU),
    CARD: ("audit", INDEX, TEACHER, MANIFEST, "out.json", *CPU),
    "profiles/tiny.yaml": ("profile", "use", "tiny"),
    "params.yaml": ("store", "plan", "r18_ce"),
    f"{PROFILE}/students/r18_ce/run.json": ("report", PROFILE, *CPU),
    f"{PROFILE}/students/r18_ce/evaluation.json": ("report", PROFILE, *CPU),
    "artifacts/manifests/tiny.audit.json": ("report", PROFILE, *CPU),
}

# The words of a command -> what its message must name.
MISTAKES: dict[tuple[str, ...], str] = {
    ("nothing",): "nothing",
    ("train",): "give RUN MANIFEST DESTINATION, or --all",
    ("train", "r18_ce"): "give RUN MANIFEST DESTINATION, or --all",
    ("train", "nobody", MANIFEST, "out"): "no student nobody",
    ("train", "r18_ce", MANIFEST, "out", "--workers", "-1"): "--workers",
    ("train", "r18_ce", MANIFEST, "out", "--workers", "x"): "--workers",
    ("train", "r18_ce", MANIFEST, "out", "--ahead-mb", "0"): "--ahead-mb",
    ("train", "r18_ce", MANIFEST, "out", "--cache", "params.yaml"): "--cache",
    ("train", "--all", "--jobs", "0"): "--jobs",
    ("train", "--all"): "no dvc.yaml",
    ("train", "r18_ce", "--all"): "no arguments",
    ("train", "--all", "--params", "profiles/tiny.yaml"): "every student of params.yaml",
    ("train", "r18_ce", MANIFEST, "out", "--jobs", "2"): "--jobs goes with --all",
    ("train", "r18_ce", MANIFEST, "out", "--cache-gb", "inf"): "--cache-gb",
    ("train", "r18_ce", MANIFEST, "out", "--cache-gb", "nan"): "--cache-gb",
    ("repro",): "no dvc.yaml",
    ("fingerprint",): "DESTINATION",
    ("fingerprint", "out.json", "--nothing"): "--nothing",
    ("fingerprint", "params.yaml/out.json"): "params.yaml",
    ("fingerprint", "artifacts"): "artifacts",
    ("prepare",): "give FINGERPRINT DESTINATION, or --check",
    ("prepare", "fingerprint.json"): "give FINGERPRINT DESTINATION, or --check",
    ("prepare", "fingerprint.json", "params.yaml"): "params.yaml",
    ("prepare", "--check", "--sheet", "artifacts"): "--sheet",
    ("evaluate", INDEX, "student.pt", "out.json", "--split", "nothing"): "--split",
    ("evaluate", INDEX, "student.pt", "out.json", "--split", "../val"): "--split",
    ("predict", "student.pt", "-o", "out"): "SOURCE",
    ("predict", "student.pt", "nothing.png", "-o", "out", *CPU): "nothing.png",
    ("export", "student.pt", "-o", "out.txt"): "--out",
    ("benchmark", "inference", "student.pt", "--out", "out.json", "--size", "5"): "--size",
    ("report", "nowhere"): "nowhere",
    ("profile", "use"): "NAME",
    ("profile", "use", "nothing"): "nothing",
    ("profile", "use", "../params"): "../params",
    ("profile", "use", "x" * 300): "x" * 300,
    ("profile", "use", "tiny", "--root", "elsewhere"): "--root",
    ("store", "plan", "nobody"): "no student nobody",
    ("store", "info", MANIFEST, "--figure", "out.png", "--record", "99"): "no record 99",
    ("store", "info", MANIFEST, "--figure", "out.png", "--record", "-1"): "--record",
    ("store", "info", MANIFEST, "--figure", "params.yaml/out.png"): "params.yaml",
    ("store", "verify", MANIFEST, "--spot", "0"): "--spot",
    ("store", "verify", MANIFEST, "--spot", "1"): "--spot",
    ("store", "verify", MANIFEST, "--index", INDEX): "--spot",
    ("store", "adopt", "nothing://host/store", "out.json"): "nothing",
    ("store", "to-hdf5", MANIFEST, "params.yaml/out.h5"): "params.yaml",
    ("benchmark", "losses"): "--out",
    ("benchmark", "step", "--out", "out.json", "--rounds", "0"): "--rounds",
    ("benchmark", "step", "--out", "out.json", "--student", "nobody"): "--student",
    ("benchmark", "num-views", INDEX, TEACHER, "--out", "out.json", "--views", "0"): "--views",
    ("benchmark", "num-views", INDEX, TEACHER, "--out", "out.json", "--views", "x"): "--views",
    ("benchmark", "num-views", INDEX, TEACHER, "--out", "out.json", "--case", "x"): "--case",
    ("benchmark", "subspace", INDEX, TEACHER, "--out", "out.json", "--views", "1"): "--views",
    ("benchmark", "amortise", "nowhere"): "nowhere",
}
DEVICES = ("meta", "tpu", "cuda:99", "cpu:x", "", "mps", "-1")
DEVICE_READERS: tuple[tuple[str, ...], ...] = (
    ("teacher", INDEX, "out.pt"),
    ("extract", INDEX, TEACHER, "out.json"),
    ("audit", INDEX, TEACHER, MANIFEST, "out.json"),
    ("train", "r18_ce", MANIFEST, "out"),
    ("store", "plan", "r18_ce"),
    ("benchmark", "step", "--out", "out.json"),
)


@pytest.fixture(scope="session")
def template(
    tiny_params: Params,
    tiny_index: Index,
    tiny_store: Reader,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The files of a project whose pipeline has run, as far as commands get with a wrong one."""
    folder = tmp_path_factory.mktemp("template")
    for name in ("params.yaml", "profiles/tiny.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "profiles/tiny.yaml", folder / name)
    tiny_index.write(folder / INDEX)
    manifest = Manifest.of(tiny_store.path, tiny_store.spec, tiny_store.journal)
    manifest.write(folder / MANIFEST)
    write_json({"fingerprint": tiny_index.fingerprint}, folder / "fingerprint.json")
    audit: dict[str, Any] = {
        "images": 3,
        "views": 2,
        "teacher_miou": 0.5,
        "raw_bytes": 1,
        "stored_bytes": 1,
    }
    audit |= {"digest": manifest.digest, "arrays": {}}
    write_json(audit, folder / "artifacts/manifests/tiny.audit.json")
    scores = {"miou": 0.5, "iou": [0.5], "pixel_accuracy": 0.5}
    card: dict[str, Any] = {
        "architecture": "deeplabv3_resnet101",
        "class_names": [],
        "source": "train",
    }
    card |= {"sha256": "", "val": scores, "num_parameters": 1, "seconds": 1.0}
    write_json(card, folder / CARD)
    torch.save({"state_dict": {}}, folder / TEACHER)
    for run, student in tiny_params.students.items():
        students = folder / PROFILE / "students" / run
        students.mkdir(parents=True)
        asked = {"store": manifest.fingerprint, "params": student.model_dump(mode="json")}
        measured = {"num_parameters": 1, "seconds": 1.0, "peak_memory_bytes": 1, "device": "cpu"}
        write_json({**asked, **measured, "versions": {}}, students / "run.json")
        write_json({"seconds": 1.0, **scores}, students / "evaluation.json")
        for name in ("model.pt", "log.jsonl"):
            (students / name).touch()
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that may be damaged."""
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


def contents(folder: Path) -> Iterator[tuple[Path, bytes | None]]:
    for path in sorted(folder.rglob("*")):
        yield path, path.read_bytes() if path.is_file() else None


def refused(folder: Path, words: tuple[str, ...]) -> str:
    """Run a command that must fail, in words and without a trace, and return what it said."""
    before = list(contents(folder))
    done = CliRunner().invoke(main, words)
    assert done.exit_code in (1, 2), (words, done.output, done.exception)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.startswith(("Error: ", "Usage: ")), done.stderr
    assert "Traceback" not in done.output
    assert "weights_only" not in done.output  # torch advises to run the code of a file
    assert "CIRKD_DEBUG" not in done.output, done.output  # that is how we speak of our own faults
    assert list(contents(folder)) == before
    return done.stderr


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_not_what_it_should_be_is_named(
    reader: str, content: str, project: Path
) -> None:
    words = READERS[reader]
    if "onnx" in reader:
        pytest.importorskip("onnxruntime", reason="extra `export`")
    (bad,) = (word for word in words if word.startswith(BAD))
    CONTENTS[content](project / bad)
    shutil.copy(project / CARD, project / f"{BAD}.json")
    assert BAD in refused(project, words)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_file_of_the_project_that_is_wrong_is_named(
    place: str, content: str, project: Path
) -> None:
    (project / place).unlink()
    CONTENTS[content](project / place)
    assert Path(place).name in refused(project, PLACES[place])


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_on_the_command_line_is_named(words: tuple[str, ...], project: Path) -> None:
    assert MISTAKES[words] in refused(project, words)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("words", DEVICE_READERS, ids=" ".join)
def test_a_device_that_is_none_is_named(words: tuple[str, ...], device: str, project: Path) -> None:
    assert "--device" in refused(project, (*words, "--device", device))


def test_debug_keeps_the_traceback(project: Path) -> None:
    words = ("store", "info", "absent.json")
    assert isinstance(CliRunner().invoke(main, words).exception, SystemExit)
    for set_before in (None, ""):
        runner = CliRunner(env={"CIRKD_DEBUG": set_before})
        assert isinstance(runner.invoke(main, ("--debug", *words)).exception, FileNotFoundError)
    assert isinstance(CliRunner().invoke(main, words).exception, SystemExit)


def test_a_fault_of_ours_asks_for_a_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Manifest, "read", fail)
    done = CliRunner().invoke(main, ["store", "info", MANIFEST])
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: ZeroDivisionError: division by zero; CIRKD_DEBUG=1 shows where it was raised\n"
    )
