"""The report: what it reads, what it refuses, what it says, and that it stays the same page."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from ruamel.yaml import YAML
from torch import nn

import stages.report
from pipeline.datasets.index import ClassTable, Index, Sample
from pipeline.network import Output
from pipeline.params import Params, load_params, write_params
from pipeline.report import build_page, choose_shown
from pipeline.results import ReportError, gather, metrics
from pipeline.samples import Network, pick_samples, show
from pipeline.students import build_student, save_student
from store.files import write_json
from store.manifest import Manifest

PROFILES = Path(__file__).parents[2] / "profiles"
CLASSES = ("road", "<b>&sky", "car", "never seen")
PALETTE = ((128, 64, 128), (70, 130, 180), (0, 0, 142), (220, 20, 60))
HEIGHT, WIDTH = 20, 28
CPU = torch.device("cpu")


class Constant(nn.Module):
    """A network that gives every pixel one class."""

    def __init__(self, chosen: int) -> None:
        super().__init__()
        self.register_buffer("logits", nn.functional.one_hot(torch.tensor(chosen), 4).float())

    def forward(self, image: torch.Tensor) -> Output:
        height, width = image.shape[-2] // 8, image.shape[-1] // 8
        logits = self.logits.view(1, 4, 1, 1).expand(len(image), 4, height, width)
        return Output(logits, logits, None)


def tiny_params(path: Path, students: dict[str, dict[str, Any]]) -> Params:
    """Params of the tiny profile with other students, also written to `path`."""
    raw = YAML(typ="safe").load(PROFILES / "tiny.yaml")
    raw["students"] = students
    YAML().dump(raw, path)
    params = load_params(path)
    write_params(params, path)
    return params


def student(method: str, seed: int = 0, **more: Any) -> dict[str, Any]:
    return {"architecture": "deeplabv3_resnet18", "method": method, "seed": seed, **more}


def scores(miou: float | None) -> dict[str, Any]:
    """An evaluation with the third class harder and the fourth absent."""
    value = 0.0 if miou is None else miou
    return {
        "miou": float("nan") if miou is None else miou,
        "iou": [value + 0.1, value, value - 0.1, None],
        "pixel_accuracy": min(1.0, value + 0.2),
        "confusion": [],
    }


def write_dataset(artifacts: Path, params: Params, num_val: int = 5) -> Index:
    """Tiny images whose labels are road below sky, with a void border; and their index."""
    pixels = artifacts / "datasets" / params.dataset.name / "pixels"
    pixels.mkdir(parents=True)
    random = np.random.default_rng(0)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:8] = 1
    labels[:, :2] = 255
    samples = []
    for n in range(num_val):
        image = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(image).save(pixels / f"{n}.png")
        Image.fromarray(labels).save(pixels / f"{n}-labels.png")
        samples.append(Sample(f"val/{n}", f"{n}.png", f"{n}-labels.png", HEIGHT, WIDTH))
    index = Index(
        name=params.dataset.name,
        kind="scenes",
        root=str(pixels),
        fingerprint="da7a" * 16,
        classes=ClassTable(CLASSES, PALETTE, (0, 1, 2, 3), (255,)),
        splits={"train": tuple(samples[:3]), "val": tuple(samples)},
        most_classes=2,
    )
    index.write(pixels.parent / "index.json")
    return index


def write_teacher_and_store(artifacts: Path, params: Params) -> None:
    """The card, the manifest and the audit; no weights."""
    write_json(
        {
            "architecture": "deeplabv3_resnet101",
            "class_names": list(CLASSES),
            "source": "train",
            "sha256": "7eac" * 16,
            "val": scores(0.7),
            "num_parameters": 60_987_654,
            "seconds": 180.0,
        },
        artifacts / "teachers" / f"{params.teacher.name}.json",
    )
    manifest = artifacts / "manifests" / f"{params.store.name}.json"
    manifest.parent.mkdir(parents=True)
    Manifest("artifacts/stores/f00d", "f00d", 6, "d1e5", 1).write(manifest)
    arrays = {
        "image": {"stored_bytes": 900_000, "raw_bytes": 1_000_000},
        "logits": {"stored_bytes": 400_000, "raw_bytes": 2_000_000},
        "flip": {"stored_bytes": 10, "raw_bytes": 6},
        "top": {"stored_bytes": 20, "raw_bytes": 24},
    }
    write_json(
        {
            "fingerprint": "f00d",
            "digest": "d1e5",
            "records": 6,
            "images": 3,
            "views": 2,
            "teacher_miou": 0.75,
            "stored_bytes": 1_300_030,
            "raw_bytes": 3_000_030,
            "arrays": arrays,
        },
        manifest.with_suffix(".audit.json"),
    )


def write_run(profile: Path, params: Params, name: str, miou: float | None) -> None:
    """What train and evaluate leave behind, without the weights."""
    settings, folder = params.students[name], profile / "students" / name
    terms = {"task": 1.0, "auxiliary": 1.2, **dict.fromkeys(settings.weights, 0.5)}
    header = {
        "run": name,
        "store": "f00d",
        "device": "cpu",
        "versions": {"python": "3.11.2", "torch": "2.8.0"},
        "label": settings.label,
        "params": settings.model_dump(mode="json"),
    }
    costs = {"num_parameters": 15_900_000, "seconds": 61.5, "peak_memory_bytes": 1_234_567_890}
    write_json({**header, **costs}, folder / "run.json")
    lines = [
        {
            "step": step,
            "total": 2.0,
            "learning_rate": 0.001,
            "wait_s": 0.001,
            "step_s": 9.0 if step == 1 else 0.25,
            "terms": {term: value / step for term, value in terms.items()},
        }
        for step in (1, 10, 20, 30)
    ]
    text = "\n".join(json.dumps(line) for line in (header, *lines))
    (folder / "log.jsonl").write_text(text + "\n")
    (folder / "model.pt").touch()
    evaluation = {"split": "val", "seconds": 2.5, **scores(miou)}
    write_json(evaluation, folder / "evaluation.json")


def fabricate(root: Path, students: dict[str, tuple[dict[str, Any], float | None]]) -> Params:
    """A whole artifacts folder under `root`, with params.yaml beside it."""
    params = tiny_params(root / "params.yaml", {name: raw for name, (raw, _) in students.items()})
    artifacts = root / "artifacts"
    write_dataset(artifacts, params)
    write_teacher_and_store(artifacts, params)
    for name, (_, miou) in students.items():
        write_run(artifacts / "profiles" / "tiny", params, name, miou)
    return params


PAIR = {"r18_ce": (student("ce"), 0.5), "r18_cirkd": (student("cirkd"), 0.55)}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The folder of a profile with a cross-entropy run and a distilled one."""
    fabricate(tmp_path, PAIR)
    return tmp_path / "artifacts" / "profiles" / "tiny"


@pytest.fixture
def params(profile: Path) -> Params:
    return load_params(profile.parents[2] / "params.yaml")


def page_of(profile: Path, params: Params) -> str:
    results = gather(profile, params)
    names = ["teacher", *(run.name for run in choose_shown(results.runs))]
    networks = [Network(name, lambda: Constant(0), "float32") for name in names]
    samples = pick_samples(results.index, "val")
    return build_page(results, show(results.index, samples, networks, CPU))


def words(page: str) -> str:
    """What a reader sees, in one line."""
    without_style = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", without_style)).split())


def test_metrics_are_the_agreed_figures(profile: Path, params: Params) -> None:
    assert metrics(gather(profile, params)) == {
        "teacher": {"miou": 0.7},
        "students": {
            "r18_ce": {"miou": 0.5, "method": "ce", "seed": 0, "seconds": 61.5},
            "r18_cirkd": {"miou": 0.55, "method": "cirkd", "seed": 0, "seconds": 61.5},
        },
        "store": {
            "records": 6,
            "bytes": 1_300_030,
            "fingerprint": "f00d",
            "teacher_miou_train": 0.75,
        },
    }


def test_runs_follow_params_not_the_folder(profile: Path, params: Params) -> None:
    (profile / "students" / "left_over").mkdir()
    (profile / "students" / "left_over" / "run.json").write_text("not JSON")
    assert [run.name for run in gather(profile, params).runs] == ["r18_ce", "r18_cirkd"]


def test_missing_files_are_listed_together(profile: Path, params: Params) -> None:
    (profile / "students" / "r18_ce" / "evaluation.json").unlink()
    (profile.parents[1] / "manifests" / "tiny.audit.json").unlink()
    with pytest.raises(ReportError, match="2 finding") as error:
        gather(profile, params)
    assert "evaluation.json: no such file" in str(error.value)
    assert "tiny.audit.json: no such file" in str(error.value)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"store": "0ther"}, "r18_ce learned from store 0ther; expected f00d"),
        ({"params": {"seed": 7}}, "r18_ce: trained with seed 7; expected 0"),
        ({"params": {"training": {"steps": 9}}}, "trained with training.steps 9; expected 2"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    profile: Path, params: Params, change: dict[str, Any], finding: str
) -> None:
    path = profile / "students" / "r18_ce" / "run.json"
    write_json({**json.loads(path.read_text()), **change}, path)
    with pytest.raises(ReportError, match=re.escape(finding)):
        gather(profile, params)


def test_audit_of_other_content_is_refused(profile: Path, params: Params) -> None:
    path = profile.parents[1] / "manifests" / "tiny.audit.json"
    write_json({**json.loads(path.read_text()), "digest": "0ld"}, path)
    with pytest.raises(ReportError, match="audit is of store content 0ld; expected d1e5"):
        gather(profile, params)


def test_params_of_another_profile_are_refused(profile: Path, params: Params) -> None:
    other = profile.rename(profile.with_name("other"))
    with pytest.raises(ReportError, match="params are of profile tiny; expected other"):
        gather(other, params)


def test_step_time_is_the_median(profile: Path, params: Params) -> None:
    assert gather(profile, params).runs[0].step_s == 0.25


def test_page_tells_the_result_and_its_limits(profile: Path, params: Params) -> None:
    text = words(page_of(profile, params))
    assert "DeepLabV3-R18 with CIRKD reaches 55.0 % mIoU, 5.0 points above" in text
    assert "25 % of the way to the teacher's 70.0 %" in text
    assert "One seed" in text
    assert "+5.00" in text
    assert "absent" in text
    assert "250" in text  # ms a step


def test_page_admits_a_loss(tmp_path: Path) -> None:
    params = fabricate(tmp_path, {"a": (student("ce"), 0.6), "b": (student("cirkd"), 0.58)})
    text = words(page_of(tmp_path / "artifacts/profiles/tiny", params))
    assert "58.0 % mIoU, 2.0 points below the same network" in text
    assert "−2.00" in text
    assert "of the way" not in text


def test_seeds_form_one_row(tmp_path: Path) -> None:
    students = {
        "ce0": (student("ce", 0), 0.50),
        "ce1": (student("ce", 1), 0.52),
        "cirkd0": (student("cirkd", 0), 0.53),
        "cirkd1": (student("cirkd", 1), 0.57),
    }
    params = fabricate(tmp_path, students)
    page = page_of(tmp_path / "artifacts/profiles/tiny", params)
    assert "cirkd0, cirkd1 · n = 2 seeds" in words(page)
    assert "55.00 ± 2.83" in page
    assert "+4.00 ± 1.41" in page
    assert "2 seeds: the gain is +4.00 ± 1.41" in page


def test_page_without_any_comparison(tmp_path: Path) -> None:
    params = fabricate(tmp_path, {"alone": (student("cirkd"), 0.5)})
    text = words(page_of(tmp_path / "artifacts/profiles/tiny", params))
    assert "no distilled run has its cross-entropy run" in text
    assert "One seed" not in text


def test_page_without_any_measured_class(tmp_path: Path) -> None:
    params = fabricate(tmp_path, {"a": (student("ce"), None), "b": (student("cirkd"), None)})
    profile = tmp_path / "artifacts/profiles/tiny"
    assert "No student was measured" in words(page_of(profile, params))
    assert metrics(gather(profile, params))["students"]["a"]["miou"] is None


def test_page_is_self_contained_small_and_reproducible(profile: Path, params: Params) -> None:
    page = page_of(profile, params)
    assert page == page_of(profile, params)
    assert len(page.encode()) < 2_000_000
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    targets = {target for pair in links for target in pair if target}
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "<script" not in page
    assert "@import" not in page


def test_names_are_escaped(profile: Path, params: Params) -> None:
    page = page_of(profile, params)
    assert "&lt;b&gt;&amp;sky" in page
    assert "<b>" not in page


class Balance(HTMLParser):
    """Fails on a tag that is closed without being open, and remembers ids."""

    VOID_TAGS = frozenset({"meta", "img", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in self.VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_markup_is_balanced_and_ids_are_unique(profile: Path, params: Params) -> None:
    parser = Balance()
    parser.feed(page_of(profile, params))
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))


def test_extraction_time_is_shown_where_it_was_taken(profile: Path, params: Params) -> None:
    assert gather(profile, params).store.extract_seconds is None
    write_json({"seconds": 60.0}, profile.parents[1] / "manifests" / "tiny.extract.json")
    text = words(page_of(profile, params))
    assert "The teacher's 4 min 00 s are paid once: 2 min 00 s for each of 2 students" in text


def test_samples_are_spread_over_the_split(profile: Path, params: Params) -> None:
    index = gather(profile, params).index
    many = replace(index, splits={"val": tuple(index.splits["val"][:1] * 3)})
    assert len(pick_samples(many, "val")) == 3
    assert [sample.key for sample in pick_samples(index, "val", most=2)] == ["val/1", "val/3"]


def test_shown_predictions_are_the_networks_own(profile: Path, params: Params) -> None:
    index = gather(profile, params).index
    networks = [Network(str(n), lambda n=n: Constant(n), "float32") for n in (0, 1)]
    (one,) = show(index, index.splits["val"][:1], networks, CPU)
    assert [prediction.name for prediction in one.predictions] == ["0", "1"]
    for n, prediction in enumerate(one.predictions):
        assert prediction.classes.shape == (HEIGHT, WIDTH)
        assert (prediction.classes == n).all()
    # 8 of 20 rows are class 1; the void columns do not count.
    assert one.accuracy(one.predictions[1]) == pytest.approx(8 / 20)


def test_many_runs_show_the_headline_pair(tmp_path: Path) -> None:
    students = {
        f"{method}{lr}": (student(method, training={"learning_rate": 0.1 * lr}), 0.5 + lr / 100)
        for lr in range(1, 6)
        for method in ("ce", "cirkd")
    }
    students["cirkd5"] = (students["cirkd5"][0], 0.9)
    params = fabricate(tmp_path, students)
    results = gather(tmp_path / "artifacts/profiles/tiny", params)
    names = [run.name for run in choose_shown(results.runs)]
    assert len(names) == 6
    assert {"ce5", "cirkd5"} <= set(names)


def test_stage_writes_page_and_metrics(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (raw, _) in PAIR.items():
        network = build_student(raw["architecture"], len(CLASSES))
        path = profile / "students" / name / "model.pt"
        save_student(network, raw["architecture"], CLASSES, path)
    monkeypatch.setattr(stages.report, "load_teacher", lambda path, num_classes: Constant(1))
    options = ["--params", str(profile.parents[2] / "params.yaml"), "--device", "cpu"]
    result = CliRunner().invoke(stages.report.command, [str(profile), *options])
    assert result.exit_code == 0, result.output
    page = (profile / "report" / "index.html").read_text()
    assert page.count('alt="r18_cirkd of ') == 4
    assert json.loads((profile / "metrics.json").read_text())["teacher"] == {"miou": 0.7}
    assert not list(profile.rglob("*.partial"))


def test_stage_names_what_is_missing(tmp_path: Path) -> None:
    tiny_params(tmp_path / "params.yaml", {"r18_ce": student("ce")})
    options = ["--params", str(tmp_path / "params.yaml")]
    folder = tmp_path / "artifacts" / "profiles" / "tiny"
    result = CliRunner().invoke(stages.report.command, [str(folder), *options])
    assert result.exit_code == 1
    assert "index.json: no such file" in result.output
    assert not folder.exists()
