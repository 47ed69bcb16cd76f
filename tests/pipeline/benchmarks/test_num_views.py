"""The benchmark of views: what its runs see, that it resumes, and that a run is the stage's run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pipeline.benchmarks import num_views
from pipeline.benchmarks.num_views import Case
from pipeline.benchmarks.trainer import build_objective
from pipeline.config.params import Params, StoreConfig, StudentConfig
from pipeline.evaluation.evaluate import evaluate, summarise
from pipeline.evaluation.inference import Inference
from pipeline.extraction.job import Extraction
from pipeline.models.students import load_student
from stages.cli import main
from store.reader import Reader

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def two_views(tiny_params: Params) -> StoreConfig:
    return tiny_params.store.model_copy(update={"num_views": 2})


@pytest.fixture(scope="module")
def job(tiny_job: Callable[[StoreConfig], Extraction], two_views: StoreConfig) -> Extraction:
    return tiny_job(two_views)


@pytest.fixture(scope="module")
def reader(build_store: Callable[[StoreConfig], Reader], two_views: StoreConfig) -> Reader:
    return build_store(two_views)


@pytest.fixture
def run(tiny_params: Params) -> StudentConfig:
    return tiny_params.students["r18_cirkd"]


def test_a_prefix_fills_queues_as_a_store_of_fewer_views_does(
    tiny_store: Reader, reader: Reader, run: StudentConfig
) -> None:
    states = []
    for store in (tiny_store, reader.first_views(1)):
        objective = build_objective(run, store.spec, CPU)
        objective.fill(store)
        states.append(objective.parts["memory"].state_dict())
    for kind in ("pixels", "regions"):
        for name, values in states[0][kind].items():
            assert torch.equal(values, states[1][kind][name]), (kind, name)
    assert states[0]["pixels"]["num_pushed"].sum() > 0


@pytest.mark.parametrize(
    ("case", "records", "taught"),
    [
        (Case("cirkd", None), range(12), True),
        (Case("cirkd", 1), range(6), True),
        (Case("cirkd", 2), range(12), True),
        (Case("ce", None), range(12), False),
    ],
)
def test_what_a_case_sees(
    job: Extraction, reader: Reader, run: StudentConfig, case: Case, records: range, taught: bool
) -> None:
    """Six steps of two: both views of the six images, or the one view twice."""
    training = run.training.model_copy(update={"steps": 6})
    run = run.model_copy(update={"method": case.method, "training": training})
    objective = build_objective(run, reader.spec, CPU)
    batches = list(num_views._batches(job, reader, run, case, objective, num_workers=0))
    seen = [record for batch in batches for record in batch.record.tolist()]
    assert sorted(set(seen)) == list(records)
    assert len(seen) == 12
    assert all((batch.targets is not None) == taught for batch in batches)


def test_finished_runs_are_kept_and_others_are_not(
    job: Extraction,
    reader: Reader,
    run: StudentConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = []

    def train(
        job: Extraction, reader: Reader, run: StudentConfig, case: Case, workers: int
    ) -> dict:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((case.name, run.seed))
        return {"miou": len(trained) / 10, "seconds": 1.0}

    monkeypatch.setattr(num_views, "train_and_evaluate", train)
    options = {"views": (1, 2), "num_seeds": 2}
    with pytest.raises(KeyboardInterrupt):
        num_views.benchmark(job, reader, run, tmp_path, **options)
    assert trained == [("ce-online", 0), ("ce-online", 1), ("ce-views-1", 0)]
    monkeypatch.setattr(num_views, "train_and_evaluate", lambda *_: {"miou": 0.9, "seconds": 2.0})
    found = num_views.benchmark(job, reader, run, tmp_path, **options)
    assert [one["miou"] for one in found["ce-online"]["runs"]] == [0.1, 0.2]
    assert [one["miou"] for one in found["ce-views-1"]["runs"]] == [0.3, 0.9]
    assert found["ce-online"]["miou"] == pytest.approx(0.15)
    assert found["ce-online"]["miou_deviation"] == pytest.approx(0.05 * 2**0.5)
    assert list(found) == [
        "ce-online",
        "ce-views-1",
        "cirkd-online",
        "cirkd-views-1",
        "cirkd-views-2",
    ]
    longer = run.model_copy(update={"training": run.training.model_copy(update={"steps": 3})})
    again = num_views.benchmark(job, reader, longer, tmp_path, **options)
    assert again["ce-online"]["miou"] == 0.9


def test_a_run_is_the_run_of_its_stage(
    job: Extraction,
    reader: Reader,
    run: StudentConfig,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same weights, order, queues and steps as `cirkd train` on a store of one view."""
    found = num_views.train_and_evaluate(job, reader, run, Case("cirkd", 1), num_workers=0)
    monkeypatch.chdir(tmp_path)
    options = ["--params", str(ROOT / "profiles/tiny.yaml"), "--workers", "0", "--device", "cpu"]
    done = CliRunner().invoke(main, ["train", "r18_cirkd", str(manifest), "run", *options])
    assert done.exit_code == 0, done.output
    loaded = load_student(Path("run/model.pt"))
    student, precision = loaded.network, loaded.precision
    confusion = evaluate(student, job.index, "val", CPU, Inference(precision))
    assert found["miou"] == summarise(confusion)["miou"]
    assert found["seconds"] > 0


def test_views_are_counts(tmp_path: Path) -> None:
    arguments = ["index.json", "teacher.pt", "--out", str(tmp_path / "out.json")]
    for views in ("0,1", "one", "1,,2", ""):
        done = CliRunner().invoke(main, ["benchmark", "num-views", *arguments, "--views", views])
        assert done.exit_code == 2
        assert "expected counts like 1,2,4" in done.output
