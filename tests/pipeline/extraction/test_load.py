"""An extraction loaded from its files is what those files hold."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.config.params import Params, write_params
from pipeline.datasets.index import Index
from pipeline.extraction.load import JobFiles
from pipeline.models.teacher import TeacherCard, TeacherError, build_teacher, save_teacher
from store.files import write_json


@pytest.mark.slow
def test_a_card_of_another_teacher_decides_no_identity(
    tiny_params: Params, tiny_index: Index, tmp_path: Path
) -> None:
    files = JobFiles(tmp_path / "i.json", tmp_path / "t.pt", tmp_path / "params.yaml", "cpu")
    tiny_index.write(files.index)
    write_params(tiny_params, files.params)
    teacher = build_teacher(tiny_params.teacher, tiny_index.class_names)
    sha256 = save_teacher(teacher, files.teacher)
    names = list(tiny_index.class_names)
    card = TeacherCard(teacher.architecture, names, "train", sha256, {}, 0, 0.0)
    write_json(asdict(card), tmp_path / "t.json")
    assert files.load().spec.identity["teacher"]["sha256"] == sha256
    write_json(asdict(replace(card, sha256="beef")), tmp_path / "t.json")
    with pytest.raises(TeacherError, match=f"expected sha256 beef, found {sha256}"):
        files.load()


def test_workers_of_a_machine_take_its_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.extraction.load.pick_slots", lambda device: ["cuda:0", "cuda:1"])
    files = JobFiles(Path("i.json"), Path("t.pt"), Path("params.yaml"), "auto")
    dealt = [files.dealt_to(worker).device for worker in (0, 1, 2, "tcp://elsewhere")]
    assert dealt == ["cuda:0", "cuda:1", "cuda:0", "auto"]
