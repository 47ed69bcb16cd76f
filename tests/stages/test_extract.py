"""The extract stage: what is extracted anew, and what is not."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from pipeline.config.params import Params
from pipeline.extraction.load import JobFiles
from pipeline.models.network import Network, Output
from pipeline.models.teacher import TeacherCard
from stages.cli import main
from stages.command import Interruption
from store.files import write_json
from store.manifest import Manifest


class ChangedTeacher(Network):
    """The same teacher after a change of code, which counts the images that go through it."""

    def __init__(self, teacher: Network) -> None:
        super().__init__()
        self.teacher, self.factor, self.images = teacher, 1.0, 0

    def forward(self, image: torch.Tensor) -> Output:
        self.images += len(image)
        output = self.teacher(image)
        return Output(output.logits * self.factor, output.features, output.auxiliary)


def write_card(val: dict[str, object], folder: Path) -> None:
    card = TeacherCard("deeplabv3_resnet101", ["road", "sky"], "train", "", val, 0, 0.0)
    write_json(asdict(card), folder / "teacher.json")


def test_a_doubtful_teacher_is_named_before_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobFiles, "load_whole", lambda self: None)
    command = ["extract", "index.json", str(tmp_path / "teacher.pt"), str(tmp_path / "out.json")]

    def say(confusion: object, *options: str) -> str:
        write_card({"confusion": confusion}, tmp_path)
        return CliRunner().invoke(main, [*command, *options]).stderr

    weak, permuted = [[2, 1], [1, 2]], [[0, 9], [9, 0]]
    assert "teacher.pt: its mIoU is 0.500, below 0.8" in say(weak, "--min-miou", "0.8")
    assert "warning" not in say(weak)
    assert "it predicts road as sky, sky as road" in say(permuted)
    assert "expected the card of a teacher" in say("none")


def test_again_replaces_every_unit_once_however_often_it_is_stopped(
    tiny_job, tiny_teacher, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_card({}, tmp_path)
    teacher = ChangedTeacher(tiny_teacher)
    job = tiny_job(tiny_params.store, teacher)
    assert job.spec.num_units > 1
    monkeypatch.setattr(JobFiles, "load_whole", lambda self: job)

    def extract(folder: str, *options: str) -> Result:
        paths = ["index.json", str(tmp_path / "teacher.pt"), str(tmp_path / f"{folder}.json")]
        return CliRunner().invoke(
            main, ["extract", *paths, "--stores", str(tmp_path / folder), *options]
        )

    def digest(folder: str) -> str:
        return Manifest.read(tmp_path / f"{folder}.json").open().journal.digest

    assert extract("store").exit_code == 0
    before = digest("store")
    teacher.factor = 2.0
    assert extract("other").exit_code == 0
    teacher.images = 0
    assert extract("store").exit_code == 0
    assert (teacher.images, digest("store")) == (0, before)
    for _ in range(job.spec.num_units - 1):
        with monkeypatch.context() as patch:
            answers = iter([True, False])
            patch.setattr(Interruption, "keep_going", lambda self, it=answers: next(it))
            assert extract("store", "--again").exit_code == 3
    assert extract("store", "--again").exit_code == 0
    assert teacher.images == job.spec.num_records
    assert digest("store") == digest("other") != before
    # The next one is a whole one.
    assert extract("store", "--again").exit_code == 0
    assert teacher.images == 2 * job.spec.num_records
