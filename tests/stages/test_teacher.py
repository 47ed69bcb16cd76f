"""The teacher stage: what its card says, and what it warns of."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML
from tiny_networks import TinyTeacher

from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.params import load_params
from pipeline.datasets.index import Index
from pipeline.extraction.load import JobFiles
from pipeline.models.teacher import TeacherCard
from pipeline.report.results import read_log
from stages.cli import main

ROOT = Path(__file__).parents[2]


def write_params(raw_teacher: dict[str, object]) -> None:
    """Parameters of the tiny profile with another teacher, in the working directory."""
    raw = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    raw["teacher"] |= raw_teacher
    YAML().dump(raw, Path("params.yaml"))


@pytest.fixture
def folder(tiny_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an index and a teacher `tiny_teacher` to be had."""
    entry = Architecture("Tiny", "tiny_networks:tiny_teacher", "")
    monkeypatch.setitem(ARCHITECTURES, "tiny_teacher", entry)
    monkeypatch.chdir(tmp_path)
    tiny_index.write(Path("index.json"))
    return tmp_path


def test_a_teacher_at_a_declared_stride_is_measured_and_comes_back(
    tiny_index: Index, folder: Path
) -> None:
    torch.save(TinyTeacher(tiny_index.num_classes).state_dict(), "user.pth")
    source = {"source": "checkpoint", "checkpoint": "user.pth", "architecture": "tiny_teacher"}
    write_params({**source, "stride": 16})
    command = ["teacher", "index.json", "teacher.pt", "--device", "cpu"]
    done = CliRunner().invoke(main, [*command, "--min-miou", "1"])
    assert done.exit_code == 0, done.output
    card = TeacherCard.read(Path("teacher.json"))
    assert (card.architecture, card.stride) == ("tiny_teacher", 16)
    assert Path("teacher.log.jsonl").read_bytes() == b""  # DVC wants the file of every teacher
    assert f"warning: teacher teacher.pt: its mIoU is {card.val['miou']:.3f}, below" in done.stderr
    job = JobFiles(Path("index.json"), Path("teacher.pt"), Path("params.yaml"), "cpu").load()
    assert (job.teacher.stride, job.spec.stride, job.spec.feature_height) == (16, 16, 2)
    assert job.spec.identity["teacher"]["preprocessing"]["stride"] == 16
    quiet = CliRunner().invoke(main, command, env={"CIRKD_MIN_MIOU": "0"})
    assert "below" not in quiet.stderr


def test_a_trained_teacher_leaves_its_log(folder: Path) -> None:
    write_params({"architecture": "tiny_teacher"})
    command = ["teacher", "index.json", "teacher.pt", "--device", "cpu", "--workers", "0"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    settings = load_params(Path("params.yaml")).teacher
    header, *lines = map(json.loads, Path("teacher.log.jsonl").read_text().splitlines())
    assert header["params"]["architecture"] == "tiny_teacher"
    assert lines[-1]["step"] == settings.training.steps
    assert [step.terms for step in read_log(Path("teacher.log.jsonl"))] == [
        line["terms"] for line in lines
    ]


def test_another_content_of_a_backbone_is_another_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities: list[object] = []

    def stop(kind: str, identity: object) -> Path:
        identities.append(identity)
        raise ValueError("far enough")

    monkeypatch.setattr("stages.teacher.work_folder", stop)
    write_params({"architecture": "tiny_teacher", "backbone": "imagenet.pth"})
    for content in (b"one", b"one", b"another"):
        Path("imagenet.pth").write_bytes(content)
        command = ["teacher", "index.json", "teacher.pt", "--device", "cpu"]
        assert "far enough" in CliRunner().invoke(main, command).stderr
    assert identities[0] == identities[1] != identities[2]


@pytest.mark.parametrize(
    ("section", "size", "expected"),
    [
        ("store", 40, "store.crop: expected multiples of 16, the output stride of tiny_teacher"),
        ("teacher", 40, "teacher.crop, or its progressive sizes: expected multiples of 16"),
    ],
)
def test_crops_that_its_stride_does_not_divide_are_refused_before_it_is_trained(
    section: str, size: int, expected: str, folder: Path
) -> None:
    write_params({"architecture": "tiny_teacher", "stride": 16})
    raw = YAML(typ="safe").load(Path("params.yaml"))
    raw[section]["crop"]["height"] = size
    YAML().dump(raw, Path("params.yaml"))
    done = CliRunner().invoke(main, ["teacher", "index.json", "teacher.pt", "--device", "cpu"])
    assert done.exit_code == 1
    assert expected in done.output
    assert not Path("artifacts").exists()
