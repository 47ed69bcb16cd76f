"""docs/extending.md: every block in it is added as it stands there, and used."""

import importlib
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from ruamel.yaml import YAML

from pipeline.benchmarks.trainer import build_objective, take_steps
from pipeline.config.params import Params, load_params
from pipeline.datasets.index import Index
from pipeline.distillation.requirements import supported_methods
from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction, plan_store
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.models.teacher import build_teacher, load_teacher, save_teacher
from pipeline.report.wording import architecture_title, term_title
from stages.cli import main
from store.reader import Reader, open_store
from store.writer import Writer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
CPU = torch.device("cpu")


def add(section: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Add a section's files and lines for one test; its part of params.yaml."""
    text = re.split(r"^## ", PAGE, flags=re.M)
    (body,) = (part for part in text if part.startswith(section + "\n"))
    document: dict[str, Any] = {}
    for language, block in re.findall(r"^```(\w+)\n(.+?)^```$", body, re.M | re.S):
        if language == "yaml":
            document |= YAML(typ="safe").load(block)
        elif found := re.match(r"# (\w+) in (\S+)\n", block):
            module = importlib.import_module(module_name(found[2]))
            above, line = block.strip().rsplit("\n", 1)
            names = dict(vars(module))
            exec(above, names)
            for key, value in eval("{" + line + "}", names).items():
                monkeypatch.setitem(names[found[1]], key, value)
        else:
            add_file(block, monkeypatch)
    return document


def add_file(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = block.splitlines()[0].removeprefix("# ")
    assert not (ROOT / path).exists()
    module = types.ModuleType(module_name(path))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, path, "exec"), vars(module))


def module_name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def write_params(raw: dict[str, Any], path: Path) -> Path:
    """Parameters of the tiny profile with other sections."""
    whole = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    for section, values in raw.items():
        own = section == "dataset"
        whole[section] = values if own else {**whole[section], **values}
    YAML().dump(whole, path)
    return path


def test_a_dataset_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = add("A dataset", monkeypatch)
    root = tmp_path / "fields"
    for folder, shape in (("pictures", (24, 32, 3)), ("masks", (24, 32))):
        for split in ("train", "val"):
            (root / folder / split).mkdir(parents=True)
            Image.fromarray(np.ones(shape, np.uint8)).save(root / folder / split / "one.png")
    raw["dataset"]["root"] = str(root)
    params = ["--params", str(write_params(raw, tmp_path / "params.yaml"))]
    for arguments in (["fingerprint"], ["prepare", str(tmp_path / "fingerprint.json")]):
        out = str(tmp_path / ("fingerprint.json" if len(arguments) == 1 else "out"))
        done = CliRunner().invoke(main, [*arguments, out, *params])
        assert done.exit_code == 0, done.output
    index = Index.read(tmp_path / "out/index.json")
    assert (index.kind, index.class_names) == ("fields", ("soil", "crop"))
    assert [sample.key for sample in index.splits["train"]] == ["train/one"]


def test_a_student_takes_a_step(
    tiny_store: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_params(add("A student", monkeypatch), tmp_path / "params.yaml")
    config = load_params(path).students["narrow_cirkd"]
    result, objective = take_step(tiny_store, config)
    assert torch.isfinite(result.total)
    assert objective.modules["student"].feature_channels == 64
    assert architecture_title(config.architecture) == "Narrow-R18"


def test_a_student_in_the_users_own_code_takes_a_step(
    tiny_store: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = PAGE.split("## A student in your own code\n")[1]
    code, raw = re.findall(r"^```(?:python|yaml)\n(.+?)^```$", section, re.M | re.S)[:2]
    (tmp_path / code.split("\n")[0].removeprefix("# ")).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    path = write_params(YAML(typ="safe").load(raw), tmp_path / "params.yaml")
    config = load_params(path).students["small_cirkd"]
    result, objective = take_step(tiny_store, config)
    assert torch.isfinite(result.total)
    student = objective.modules["student"]
    assert (student.stride, student.feature_channels) == (4, 32)


def take_step(reader: Reader, config: Any) -> tuple[Any, Any]:
    objective = build_objective(config, reader.spec, CPU)
    objective.fill(reader)
    batches = stream(reader, LoaderConfig.of_student(config, objective.needs), range(1), CPU)
    (result,) = take_steps(objective, config.training, batches)
    return result, objective


def test_a_teachers_record_has_its_own_sizes(
    tiny_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_params(add("A teacher", monkeypatch), tmp_path / "params.yaml")
    params: Params = load_params(path)
    sha256 = save_teacher(build_teacher(params.teacher, tiny_index.class_names), tmp_path / "t.pt")
    teacher = load_teacher(tmp_path / "t.pt", tiny_index.num_classes, params.teacher.architecture)
    spec = plan_store(tiny_index, params.store, teacher, sha256, CPU)
    assert spec.identity["teacher"]["architecture"] == "shallow_16"
    job = Extraction(tiny_index, teacher, params.store, spec, CPU)
    with Writer.open(tmp_path / "store", spec) as writer:
        assert extract(job, writer)
        writer.finish()
    reader = open_store(tmp_path / "store")
    arrays = reader.read([0], list(reader.map_arrays("features").values()))
    assert reader.decode("features", arrays).shape == (1, 48, 4, 4)
    assert architecture_title(teacher.architecture) == "Shallow-16"
    result, _ = take_step(reader, params.students["r18_cirkd"])
    assert torch.isfinite(result.total)


def test_a_term_is_computed(
    tiny_store: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_params(add("A term of the loss", monkeypatch), tmp_path / "params.yaml")
    config = load_params(path).students["r18_cosine"]
    result, _ = take_step(tiny_store, config)
    assert 0 < float(result.terms["feature_cosine"]) < 2
    assert term_title("feature_cosine") == "Cosine of features"
    named = config.model_copy(update={"terms": None, "method": "cosine"})
    assert named.weights == config.weights
    assert supported_methods(tiny_store.spec)[-1] == "cosine"
