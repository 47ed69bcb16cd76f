"""The train stage as DVC runs it: from a manifest alone, with no teacher in the process."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner, Result

from pipeline.config.params import Params, StoreConfig
from pipeline.datasets.index import Index
from pipeline.distillation.objective import Objective
from pipeline.loading.batch import Batch
from pipeline.loading.memory_budget import in_flight_bytes
from pipeline.models.network import build_network
from pipeline.models.students import load_student
from stages.cli import main
from stages.command import Interruption
from store.manifest import Manifest
from store.reader import Reader, open_store
from store.writer import Writer

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
CODE = """
import sys
import time
from stages.train import command
command(sys.argv[1:], standalone_mode=False)
print(bool({"pipeline.models.teacher", "pipeline.extraction"} & set(sys.modules)))
"""


def arguments_of(
    run: str, manifest: Path, folder: Path, params: Path = ROOT / "profiles/tiny.yaml"
) -> list[str]:
    options = ["--params", str(params), "--workers", "0"]
    return [run, str(manifest), str(folder), *options]


@pytest.fixture
def train(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the stage in this process, into a folder of tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, folder: str = "run", manifest: Path = manifest, **params: Path) -> Result:
        arguments = arguments_of(name, manifest, tmp_path / folder, **params)
        return CliRunner().invoke(main, ["train", *arguments])

    return run


def test_a_student_trains_without_a_teacher_in_the_process(
    manifest: Path, tiny_index: Index, tmp_path: Path
) -> None:
    arguments = arguments_of("r18_cirkd", manifest, tmp_path / "run")
    command = [sys.executable, "-W", "error", "-c", CODE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    summary = json.loads((tmp_path / "run/run.json").read_text())
    assert summary["num_flops"] > summary["num_parameters"]
    assert summary["label"] == "cirkd"
    assert summary["seconds"] > 0
    loaded = load_student(tmp_path / "run/model.pt")
    student, precision = loaded.network, loaded.precision
    assert precision == "float32"
    assert loaded.classes == replace(tiny_index.classes, void_ids=())
    assert student.auxiliary is None
    assert not any(name.startswith("auxiliary") for name in student.state_dict())
    logged = (tmp_path / "run/log.jsonl").read_text().splitlines()
    header = json.loads(logged[0])
    assert header["params"]["seed"] == 0
    # Without workers: the batch in use and the next.
    needs = ("logits", "features", "regions")
    spec = open_store(Manifest.read(manifest).path).spec
    assert header["in_flight_bytes"] == in_flight_bytes(spec, needs, 2, 0, 2)
    assert set(json.loads(logged[-1])["terms"]) >= {"memory_pixel", "memory_region"}
    assert not list((tmp_path / "artifacts/work").iterdir())


def test_outputs_take_the_place_of_links_and_write_through_none(
    train: Callable[..., Result], tmp_path: Path
) -> None:
    """DVC's cache and what lies in the workspace are one file, read-only, under two names."""
    (tmp_path / "run").mkdir()
    kept = [tmp_path / name for name in ("model.pt", "run.json", "log.jsonl")]
    for path in kept:
        path.write_text("kept")
        path.chmod(0o444)
        (tmp_path / "run" / path.name).hardlink_to(path)
    assert train("r18_ce").exit_code == 0
    assert [path.read_text() for path in kept] == ["kept"] * 3
    assert all((tmp_path / "run" / path.name).stat().st_size > 4 for path in kept)


def test_a_finished_training_is_taken_over_until_dvc_has_recorded_it(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC deletes what a stage made before it runs it again, and a lock may keep it from recording.

    Once recorded, a training that is asked for (`dvc repro -f`) is a training.
    """
    compute, taken = Objective.compute_terms, []

    def count(self: Objective, batch: Batch) -> dict[str, torch.Tensor]:
        taken.append(len(batch))
        return compute(self, batch)

    monkeypatch.setattr(Objective, "compute_terms", count)
    monkeypatch.setenv("DVC_STAGE", "train@r18_ce")
    assert train("r18_ce").exit_code == 0
    model, num_taken = (tmp_path / "run/model.pt").read_bytes(), len(taken)
    assert num_taken > 0
    shutil.rmtree(tmp_path / "run")
    again = train("r18_ce")
    assert again.exit_code == 0
    assert "nothing is left to do" in again.stderr
    assert (tmp_path / "run/model.pt").read_bytes() == model
    assert len(taken) == num_taken
    (tmp_path / "dvc.lock").write_text(f"  md5: {hashlib.md5(model).hexdigest()}\n")
    monkeypatch.delenv("DVC_STAGE")
    assert train("r18_ce").exit_code == 0
    assert (tmp_path / "run/model.pt").read_bytes() == model
    assert len(taken) == 2 * num_taken
    assert not list((tmp_path / "artifacts/work").iterdir())


def test_another_content_under_the_same_fingerprint_is_refused_and_never_gone_on_over(
    manifest: Path,
    tiny_store: Reader,
    train: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a teacher gives on another machine; a training half done on the one is not the other's."""
    other = shutil.copytree(tiny_store.path, tmp_path / "store")
    records = tiny_store.spec.unit_records(0)
    arrays = tiny_store.read(records, tiny_store.arrays)
    with Writer.open(other, tiny_store.spec) as writer:
        writer.write(0, {**arrays, "image": arrays["image"] ^ 1})
        written = writer.finish()
    written.write(tmp_path / "other.json")
    replace(written, digest=tiny_store.journal.digest).write(tmp_path / "outdated.json")
    refused = train("r18_ce", manifest=tmp_path / "outdated.json")
    assert refused.exit_code == 1
    assert f"digest {tiny_store.journal.digest}" in refused.output
    assert not (tmp_path / "artifacts").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "keep_going", lambda self: False)
        assert train("r18_ce", manifest=manifest).exit_code == 3
        assert train("r18_ce", manifest=tmp_path / "other.json").exit_code == 3
    assert len(list((tmp_path / "artifacts/work").iterdir())) == 2


def test_a_training_half_done_from_other_weights_is_not_gone_on_with(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same path in params.yaml, and another file there."""
    text = (ROOT / "profiles/tiny.yaml").read_text()
    given = "resnet18, encoder_weights: encoder.pt, method: ce"
    params = tmp_path / "params.yaml"
    params.write_text(text.replace("resnet18, method: ce", given))
    monkeypatch.setattr(Interruption, "keep_going", lambda self: False)
    for seed in (1, 2):
        torch.manual_seed(seed)
        encoder = build_network("deeplabv3_resnet18", 8).encoder
        torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
        assert train("r18_ce", params=params).exit_code == 3
    assert len(list((tmp_path / "artifacts/work").iterdir())) == 2


def test_same_seed_same_weights(train: Callable[..., Result], tmp_path: Path) -> None:
    """Whatever torch's global generator has given before."""
    measured = tmp_path / "one/evaluation.json"
    measured.parent.mkdir()
    measured.write_text("{}")
    for name in ("one", "other"):
        assert train("r18_ce", name).exit_code == 0
    assert not measured.exists()  # of another student
    one, other = (load_student(tmp_path / name / "model.pt").network for name in ("one", "other"))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_a_compiled_student_with_every_option_trains(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend `eager` traces as inductor does, and needs no compiler on the machine."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "profiles/tiny.yaml").read_text()
    training = "{compile: eager, ema_decay: 0.9, clip_norm: 1.0, batch_size: 4, accumulate: 2}"
    params = tmp_path / "params.yaml"
    params.write_text(text.replace("method: cirkd,", f"method: cirkd, training: {training},"))
    arguments = ["r18_cirkd", str(manifest), "run", "--params", str(params), "--workers", "0"]
    done = CliRunner().invoke(main, ["train", *arguments])
    assert done.exit_code == 0, done.output
    student = load_student(tmp_path / "run/model.pt").network
    assert all(torch.isfinite(x).all() for x in student.state_dict().values())


def test_an_unknown_backend_is_refused(manifest: Path, tmp_path: Path) -> None:
    text = (ROOT / "profiles/tiny.yaml").read_text()
    params = tmp_path / "params.yaml"
    params.write_text(text.replace("method: ce,", "method: ce, training: {compile: nobody},"))
    arguments = ["train", "r18_ce", str(manifest), str(tmp_path / "run"), "--params", str(params)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "training.compile: expected one of" in done.output


@pytest.mark.slow
def test_torchrun_trains_and_evaluates_as_one_process_does(
    manifest: Path, tiny_index: Index, tmp_path: Path
) -> None:
    """The commands as a user gives them; batch statistics differ, so figures are not compared."""
    text = (ROOT / "profiles/tiny.yaml").read_text()
    params = tmp_path / "params.yaml"
    params.write_text(text.replace("method: cirkd,", "method: cirkd, training: {batch_size: 4},"))
    index = tmp_path / "index.json"
    tiny_index.write(index)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CIRKD_DEVICE": "cpu"}

    def run(*arguments: str) -> None:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    run(*TORCHRUN, "stages.train", "r18_cirkd", str(manifest), "run", "--params", str(params))
    assert json.loads((tmp_path / "run/run.json").read_text())["ranks"] == 2
    run(*TORCHRUN, "stages.evaluate", str(index), "run/model.pt", "two.json")
    run("-m", "stages.evaluate", str(index), "run/model.pt", "one.json")
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["confusion"] == two["confusion"]
    assert sum(map(sum, one["confusion"])) > 0


@pytest.mark.slow
def test_ranks_that_were_stopped_equal_ranks_that_never_were(
    manifest: Path, tmp_path: Path
) -> None:
    """torchrun hands SIGTERM on; each rank's drawn rows and dropout go on where they stood."""
    text = (ROOT / "profiles/tiny.yaml").read_text()
    params = tmp_path / "params.yaml"
    changed = "training: {batch_size: 4, steps: 60}, distillation: {minibatch_anchors: 48}"
    params.write_text(text.replace("method: cirkd,", f"method: cirkd, {changed},"))

    def start(folder: str) -> subprocess.Popen[bytes]:
        options = ["r18_cirkd", str(manifest), folder, "--params", str(params)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CIRKD_DEVICE": "cpu"}
        command = [sys.executable, *TORCHRUN, "stages.train", *options]
        return subprocess.Popen(command, cwd=tmp_path, env=environment)

    assert start("whole").wait(300) == 0
    stopped = start("parts")
    deadline = time.monotonic() + 120
    while not any(log.read_text().count("\n") > 2 for log in logs_of(tmp_path)):
        assert stopped.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped.terminate()
    assert stopped.wait(60) != 0
    (work,) = tmp_path.glob("artifacts/work/*")
    assert 0 < torch.load(work / "last.pt")["step"] < 60
    assert start("parts").wait(300) == 0
    whole, parts = (torch.load(tmp_path / f"{name}/model.pt") for name in ("whole", "parts"))
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name


def logs_of(folder: Path) -> list[Path]:
    return list(folder.glob("artifacts/work/*/log.jsonl"))


def test_an_unknown_run_is_refused(train: Callable[..., Result]) -> None:
    done = train("nobody")
    assert done.exit_code != 0
    assert "expected one of r18_ce, r18_cirkd" in done.output


def test_a_run_that_the_store_cannot_serve_is_refused_before_anything_is_built(
    tiny_params: Params,
    build_store: Callable[[StoreConfig], Reader],
    train: Callable[..., Result],
    tmp_path: Path,
) -> None:
    store = build_store(tiny_params.store.model_copy(update={"targets": ("logits",)}))
    fingerprint, path = store.spec.fingerprint, tmp_path / "manifest.json"
    Manifest(str(store.path), fingerprint, len(store), store.journal.digest, 1).write(path)
    done = train("r18_cirkd", manifest=path)
    assert done.exit_code != 0
    assert "which serve ce, kd" in done.output
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["manifest.json"]


def test_a_missing_store_says_how_to_build_it(
    manifest: Path, train: Callable[..., Result], tmp_path: Path
) -> None:
    raw = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**raw, "path": str(tmp_path / "gone")}))
    done = train("r18_ce")
    assert done.exit_code != 0
    assert "gone" in done.output
    assert "extract" in done.output


@pytest.fixture
def running(manifest: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A training of many steps, each of them saved, with a loader process; some are done."""
    store = shutil.copytree(json.loads(manifest.read_text())["path"], tmp_path / "store")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "path": str(store)}))
    text = (ROOT / "profiles/tiny.yaml").read_text()
    params = tmp_path / "params.yaml"
    many = "method: ce, training: {steps: 5000, checkpoint_every: 1},"
    params.write_text(text.replace("method: ce,", many))
    arguments = ["r18_ce", str(manifest), "run", "--params", str(params), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        deadline = time.monotonic() + 120
        while not any(tmp_path.glob("artifacts/work/*/last.pt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


def signal_group(process: subprocess.Popen[str]) -> None:
    """Ctrl-C in a terminal, say: loader processes leave the group, and the stage alone answers."""
    os.killpg(process.pid, signal.SIGTERM)


def signal_everyone(process: subprocess.Popen[str]) -> None:
    """Slurm's scancel, say: loader processes end, and the stage has no batch for its next step."""
    (worker,) = psutil.Process(process.pid).children()
    worker.terminate()
    time.sleep(0.05)
    process.terminate()


@pytest.mark.parametrize("send", [signal_group, signal_everyone])
def test_a_signal_to_every_process_keeps_the_work(
    send: Callable[[subprocess.Popen[str]], None],
    running: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    send(running)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 3, error
    assert "run the same command to go on" in error
    (work,) = tmp_path.glob("artifacts/work/*")
    assert torch.load(work / "last.pt")["step"] > 0


def test_a_store_that_vanishes_ends_in_a_message_and_a_checkpoint(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "store")
    _, error = running.communicate(timeout=60)
    assert running.returncode == 1, error
    assert "Traceback" not in error
    assert "the same command goes on from" in error
    assert str(tmp_path / "store") in error
    (work,) = tmp_path.glob("artifacts/work/*")
    assert torch.load(work / "last.pt")["step"] > 0


def test_a_killed_worker_ends_in_a_message_and_a_checkpoint(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    (worker,) = psutil.Process(running.pid).children()
    worker.kill()
    _, error = running.communicate(timeout=60)
    assert running.returncode == 1, error
    assert "Traceback" not in error
    assert "the same command goes on from" in error
    assert "--workers 1" in error
    (work,) = tmp_path.glob("artifacts/work/*")
    assert torch.load(work / "last.pt")["step"] > 0


@pytest.mark.parametrize("memory", ["memory: queue", "queue_storage: uint8", "memory: bank"])
def test_a_distilled_student_that_was_stopped_equals_one_that_never_was(
    memory: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its memory, projector, anchors and stream, through the stage's own command."""
    text = (ROOT / "profiles/tiny.yaml").read_text()
    params = tmp_path / "params.yaml"
    drawn = "minibatch_anchors: 24, memory_anchors: 24"
    changed = f"method: cirkd, training: {{steps: 3}}, distillation: {{{memory}, {drawn}}},"
    params.write_text(text.replace("method: cirkd,", changed))
    monkeypatch.chdir(tmp_path)
    options = ["--params", str(params), "--workers", "0", "--device", "cpu"]

    def run(folder: str) -> Result:
        return CliRunner().invoke(main, ["train", "r18_cirkd", str(manifest), folder, *options])

    assert run("whole").exit_code == 0
    compute, calls = Objective.compute_terms, iter(range(1, 100))

    def stop_in_the_second_step(self: Objective, batch: Batch) -> dict[str, torch.Tensor]:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(self, batch)

    monkeypatch.setattr(Objective, "compute_terms", stop_in_the_second_step)
    assert run("parts").exit_code == 3
    torch.manual_seed(99)
    assert run("parts").exit_code == 0
    assert next(calls) == 3 + 1
    whole, parts = (torch.load(f"{name}/model.pt")["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_missing_tensorboard_is_told_before_anything_begins(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.command.find_spec", lambda name: None)
    words = ["train", *arguments_of("r18_ce", manifest, tmp_path / "run")]
    done = CliRunner().invoke(main, words, env={"CIRKD_TENSORBOARD": "scalars"})
    assert done.exit_code == 2
    assert "pip install '.[tensorboard]'" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json"]


def test_all_students_need_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "profiles/tiny.yaml", "params.yaml")
    done = CliRunner().invoke(main, ["train", "--all"])
    assert done.exit_code == 1
    assert "no store yet; `dvc repro audit` makes it" in done.output
