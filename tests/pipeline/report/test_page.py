"""The page: what it says, what it admits, and that it stays the same, small and self-contained."""

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from report_pages import page_of
from torch import nn

import stages.report
from pipeline.config.params import Params
from pipeline.datasets.classes import class_table
from pipeline.models.network import build_network
from pipeline.models.students import save_student
from pipeline.models.teacher import TeacherCard
from pipeline.report import confusion, sections
from pipeline.report.amortisation import Amortisation
from pipeline.report.comparison import group_runs
from pipeline.report.page import build_page, choose_shown
from pipeline.report.results import gather
from store.files import write_json

Fabricate = Callable[..., tuple[Path, Params]]


def words(page: str) -> str:
    """What a reader sees, in one line."""
    text = re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_page_tells_the_result_and_its_limits(profile: Path, params: Params) -> None:
    text = words(page_of(profile, params))
    assert "DeepLabV3-R18 with CIRKD reaches 55.0 % mIoU, 5.0 points above" in text
    assert "25 % of the way to the teacher’s 70.0 %" in text
    assert "One seed" in text
    assert "+5.00" in text
    assert "absent" in text
    assert "250" in text  # ms a step


def test_page_admits_a_loss(fabricate: Fabricate) -> None:
    text = words(page_of(*fabricate({"a": ("ce", 0.6), "b": ("cirkd", 0.58)})))
    assert "58.0 % mIoU, 2.0 points below the same network" in text
    assert "−2.00" in text
    assert "of the way" not in text


def test_seeds_form_one_row(fabricate: Fabricate) -> None:
    students = {
        f"{method}{seed}": (method, miou, {"seed": seed})
        for method, seed, miou in (
            ("ce", 0, 0.50),
            ("ce", 1, 0.52),
            ("cirkd", 0, 0.53),
            ("cirkd", 1, 0.57),
        )
    }
    page = page_of(*fabricate(students))
    assert "cirkd0, cirkd1 · n = 2 seeds" in words(page)
    assert "55.00 ± 2.83" in page
    assert "+4.00 ± 1.41" in page
    assert (
        "2 seeds: the gain is +4.00 points, and its 95 % interval, −8.71 to +16.71, holds zero"
        in page
    )


@pytest.mark.parametrize(("first", "second"), [(0.53, 0.57), (0.53, 0.55), (0.48, 0.50)])
def test_a_gain_is_marked_where_its_interval_is_above_zero(
    first: float, second: float, fabricate: Fabricate
) -> None:
    miou = {("ce", 0): 0.50, ("ce", 1): 0.5201, ("cirkd", 0): first, ("cirkd", 1): second}
    students = {
        f"{method}{seed}": (method, value, {"seed": seed}) for (method, seed), value in miou.items()
    }
    assert ('class="n gain"' in page_of(*fabricate(students))) == (second == 0.55)


def test_page_tells_queue_sizes_apart_and_what_the_paper_found(fabricate: Fabricate) -> None:
    students = {
        f"q{size}_{seed}": ("cirkd", miou + 0.01 * seed, {"seed": seed, **queue})
        for size, miou in ((32, 0.5), (40, 0.6), (48, 0.55))
        for queue in [{"distillation": {"pixel_queue": size}}]
        for seed in range(2)
    }
    text = words(page_of(*fabricate(students)))
    for size in (32, 40, 48):
        assert f"DeepLabV3-R18, CIRKD, pixel_queue {size}" in text
    assert "Holds here: pixel_queue 40 is better than the smallest, 32 (+10.00 ± 0.00)" in text


def test_page_without_an_ablation_says_nothing_of_one(profile: Path, params: Params) -> None:
    assert "ablation" not in words(page_of(profile, params)).lower()


def test_page_without_any_comparison(fabricate: Fabricate) -> None:
    text = words(page_of(*fabricate({"alone": ("cirkd", 0.5)})))
    assert "no distilled run has its cross-entropy run" in text
    assert "One seed" not in text


def test_page_without_any_measured_class(fabricate: Fabricate) -> None:
    made = fabricate({"a": ("ce", None), "b": ("cirkd", None)})
    assert "No student was measured" in words(page_of(*made))


def test_page_is_self_contained_small_and_reproducible(profile: Path, params: Params) -> None:
    page = page_of(profile, params)
    assert page == page_of(profile, params)
    assert len(page.encode()) < 2_000_000
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    targets = {target for pair in links for target in pair if target}
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert re.findall(r"<script([^>]*)>", page) == [' type="application/json" id="maps"', ""]
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
    assert "The teacher’s 4 min 00 s are paid once: 2 min 00 s for each of 2 students" in text


def amortisation(store: str) -> Amortisation:
    seconds = {"ce": 0.1, "offline": 0.2, "online": 0.3, "public_code": 0.1}
    costs = {"teacher_s": 180.0, "extraction_s": 95.0, "offline_s": 60.0, "step_s": seconds}
    return Amortisation.from_costs(store, "r18_cirkd", **costs)


def test_page_draws_when_the_store_pays(profile: Path, params: Params) -> None:
    before = page_of(profile, params)
    assert "of extraction once" not in words(before)
    write_json(amortisation("f00d").to_dict(), profile / "amortise.json")
    page = page_of(profile, params)
    assert page.count('aria-label="Time of n students, minutes"') == 1
    text = words(page)
    assert "r18_cirkd: 95.0 s of extraction once, then 60.0 s a student" in text
    assert "90.0 s a student; the store pays from 4 students on" in text
    assert "30.0 s a student; the store never pays" in text
    (profile / "amortise.json").unlink()
    assert page_of(profile, params) == before


def test_page_does_not_draw_the_costs_of_another_store(profile: Path, params: Params) -> None:
    write_json(amortisation("beef").to_dict(), profile / "amortise.json")
    page = page_of(profile, params)
    assert "amortise.json is of store beef" in words(page)
    assert "Time of n students" not in page


def test_many_runs_show_the_headline_pair(fabricate: Fabricate) -> None:
    students = {
        f"{method}{rate}": (method, 0.5 + rate / 100, {"training": {"learning_rate": 0.1 * rate}})
        for rate in range(1, 6)
        for method in ("ce", "cirkd")
    }
    results = gather(*fabricate(students))
    names = [run.name for run in choose_shown(results.runs)]
    assert len(names) == 6
    assert {"ce5", "cirkd5"} <= set(names)


def test_stage_writes_page_and_metrics(
    profile: Path, params: Params, constant: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, settings in params.students.items():
        path = profile / "students" / name / "model.pt"
        save_student(build_network(settings.architecture, 4), settings, class_table("abcd"), path)
    monkeypatch.setattr(TeacherCard, "load", lambda *_: constant(1))
    options = ["--params", str(profile.parents[2] / "params.yaml"), "--device", "cpu"]
    result = CliRunner().invoke(stages.report.command, [str(profile), *options])
    assert result.exit_code == 0, result.output
    page = (profile / "report" / "index.html").read_text()
    assert page.count('alt="r18_cirkd of ') == 4
    assert json.loads((profile / "metrics.json").read_text())["teacher"] == {"miou": 0.7}
    assert not list(profile.rglob("*.partial"))


def test_stage_names_what_is_missing(profile: Path) -> None:
    (profile / "students" / "r18_ce" / "run.json").unlink()
    options = ["--params", str(profile.parents[2] / "params.yaml")]
    result = CliRunner().invoke(stages.report.command, [str(profile), *options])
    assert result.exit_code == 1
    assert "run.json: no such file" in result.output
    assert not (profile / "metrics.json").exists()


def test_what_the_audit_measured_is_told_and_nothing_where_it_did_not(
    profile: Path, params: Params
) -> None:
    assert "mirrored" not in words(page_of(profile, params))
    figures = {"records": 16, "logits_kl": 2e-7, "flip_cosine": 0.91234, "crop_cosine": 0.98765}
    write_json(figures, profile.parents[1] / "manifests" / "tiny.fidelity.json")
    text = words(page_of(profile, params))
    assert "stored features mirrored, cosine to the teacher on the mirrored image 0.9123" in text
    assert "stored features cropped, cosine to the teacher on the cropped image 0.9877" in text
    assert "2e-07" in text
    assert "16 records" in text


def test_operations_are_shown_where_they_were_counted(profile: Path, params: Params) -> None:
    """A run of before they were counted has none."""
    path = profile / "students" / "r18_ce" / "run.json"
    run = json.loads(path.read_text())
    assert "num_flops" not in run
    path.write_text(json.dumps({**run, "num_flops": 12_345_678_901}))
    results = gather(profile, params)
    assert [run.num_flops for run in results.runs] == [12_345_678_901, None]
    page = build_page(results, [])
    assert page.count('data-value="12345678901">12.3 G</td>') == 1
    assert "one forward pass over a view of 32×32" in page


def test_details_and_confusion_of_the_best_student(profile: Path, params: Params) -> None:
    page = page_of(profile, params)
    assert page.count('data-value="0.423">42.30') == 2
    assert page.count('data-value="0.731">73.10') == 2
    text = words(page)
    assert "What r18_cirkd takes for what" in text
    # 30 of 60 car pixels; the class that never occurs has no row.
    assert "car is taken for road (50 %), <b>&sky is taken for road (25 %)" in text
    assert page.count('<th scope="row">') == 3
    assert '<td style="--share:75%">75</td>' in page


def test_a_matrix_of_many_classes_shows_the_most_confused(
    profile: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confusion, "MOST_CONFUSED", 2)
    rows = group_runs(gather(profile, params).runs)
    found = confusion.find_confusion(rows[1])
    assert found is not None
    assert found.classes == (0, 1)  # with 60 and 30 mistaken pixels, as many as the third's 30
    assert found.shares == ((0.9, 0.1), (0.25, 0.75))


def test_of_many_classes_those_are_drawn_that_change_most(
    profile: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = profile / "students" / "r18_cirkd" / "evaluation.json"
    values = json.loads(path.read_text())
    write_json({**values, "iou": [0.61, 0.9, 0.1, None]}, path)
    monkeypatch.setattr(sections, "MOST_CLASSES", 2)
    results = gather(profile, params)
    rows, colours = group_runs(results.runs), {"r18_ce": "#111111", "r18_cirkd": "#222222"}
    (panel,) = sections.class_panels(results, rows, colours)
    assert panel.note == "r18_cirkd, the 2 classes that change most"
    assert "car" in panel.figures[1]  # by −30 points, and the sky by 40
    assert "road" not in panel.figures[1]


def test_the_teachers_terms_are_drawn(profile: Path, params: Params) -> None:
    page = page_of(profile, params)
    assert page.count('aria-label="Teacher: cross-entropy by step"') == 1
    log = profile.parents[1] / "teachers" / f"{params.teacher.name}.log.jsonl"
    log.write_text("")  # it was not trained here
    assert "What the teacher minimised" not in page_of(profile, params)


def test_what_older_files_lack_is_left_out(profile: Path, params: Params) -> None:
    (profile.parents[1] / "teachers" / f"{params.teacher.name}.log.jsonl").unlink()
    for path in profile.glob("students/*/evaluation.json"):
        values = json.loads(path.read_text())
        for name in ("confusion", "mean_accuracy", "mean_boundary_f"):
            del values[name]
        path.write_text(json.dumps(values))
    page = page_of(profile, params)
    assert "takes for what" not in page
    assert "What the teacher minimised" not in page
    assert "55.00" in page


def test_embeddings_that_do_not_differ_have_no_space(profile: Path, params: Params) -> None:
    assert 'id="space"' not in page_of(profile, params)
    page = page_of(profile, params, noise=0.3)
    assert page.count('aria-label="Pixel embeddings of ') == 3
    assert page == page_of(profile, params, noise=0.3)
