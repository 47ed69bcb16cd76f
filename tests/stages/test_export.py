"""`cirkd export`: graphs agree with torch at sizes that nobody traced, or are not left behind."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.params import Params
from pipeline.datasets.classes import class_table
from pipeline.datasets.index import Index
from pipeline.models.export import Agreement
from pipeline.models.network import build_network
from pipeline.models.onnx_network import OnnxNetwork
from pipeline.models.students import load_student, save_student
from stages.cli import main

CPU = torch.device("cpu")


@pytest.fixture
def student(
    tiny_params: Params, tiny_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    tiny = Architecture("Tiny", "tiny_networks:tiny_student", "")
    monkeypatch.setitem(ARCHITECTURES, "tiny_student", tiny)
    settings = tiny_params.students["r18_ce"].model_copy(update={"architecture": "tiny_student"})
    network = build_network("tiny_student", tiny_index.num_classes)
    save_student(network, settings, tiny_index.classes, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def export(student: Path, name: str, *options: object) -> Result:
    words = ["export", str(student), "-o", str(student.parent / name), *map(str, options)]
    return CliRunner().invoke(main, words)


def needs_the_extra() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="extra `export`")


@pytest.mark.slow
def test_a_graph_agrees_at_odd_sizes_and_says_what_it_is(student: Path, tiny_index: Index) -> None:
    needs_the_extra()
    done = export(student, "model.onnx")
    assert done.exit_code == 0, done.output
    assert "129x161: largest difference of a logit" in done.output
    graph, network = OnnxNetwork(student.parent / "model.onnx", CPU), load_student(student).network
    assert graph.classes == class_table(
        tiny_index.class_names, tiny_index.palette, tiny_index.classes.label_ids
    )
    assert (graph.architecture, graph.size) == ("tiny_student", None)
    for batch, height, width in ((1, 33, 41), (3, 8, 97), (1, 1, 1)):
        image = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        with torch.inference_mode():
            expected = network.predict_logits(image, "float32")
        found = graph.predict_logits(image, "float32")
        assert found.shape == (batch, tiny_index.num_classes, height, width)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (
        str(Path(__file__).parents[2]).encode() not in (student.parent / "model.onnx").read_bytes()
    )


@pytest.mark.slow
def test_a_graph_of_one_size_refuses_others(student: Path) -> None:
    needs_the_extra()
    assert export(student, "fixed.onnx", "--size", "40x56").exit_code == 0
    graph = OnnxNetwork(student.parent / "fixed.onnx", CPU)
    assert (
        graph.predict_logits(torch.zeros(2, 3, 40, 56, dtype=torch.uint8), "float32")
        .isfinite()
        .all()
    )
    with pytest.raises(ValueError, match=r"expected images of 40x56.*found 40x48"):
        graph.predict_logits(torch.zeros(1, 3, 40, 48, dtype=torch.uint8), "float32")


def test_above_the_tolerance_no_file_is_left(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = [Agreement((8, 8), 0.01, 1.0), Agreement((9, 9), 0.0, 1.0)]
    monkeypatch.setattr("pipeline.models.export.compare", lambda *given: far)
    done = export(student, "model.pt2")
    assert done.exit_code == 1
    assert "differ from torch's by up to 1.0e-02" in done.output
    assert sorted(path.name for path in student.parent.iterdir()) == ["model.pt"]


def test_torch_export_is_the_other_format(student: Path) -> None:
    done = export(student, "model.pt2", "--size", "30x50")
    assert done.exit_code == 0, done.output
    program = torch.export.load(student.parent / "model.pt2")
    classes = program.module()(torch.zeros(1, 30, 50, 3, dtype=torch.uint8))[1]
    assert classes.shape == (1, 30, 50)
    varying = export(student, "model.pt2")
    assert varying.exit_code == 1
    assert "with sizes that vary; give --size HxW" in varying.output


@pytest.mark.slow
def test_int8_prints_both_mious(student: Path, manifest: Path, tiny_index: Index) -> None:
    needs_the_extra()
    tiny_index.write(student.parent / "index.json")
    options = ("--manifest", manifest, "--index", student.parent / "index.json", "--records", "4")
    done = export(student, "int8.onnx", "--int8", *options)
    assert done.exit_code == 0, done.output
    assert "float32: val mIoU 0." in done.output
    assert "int8: val mIoU 0." in done.output
    graph = OnnxNetwork(student.parent / "int8.onnx", CPU)
    assert graph.classes.names == tiny_index.class_names


def test_int8_of_one_size_needs_views_and_images_of_it(
    student: Path, manifest: Path, tiny_index: Index
) -> None:
    tiny_index.write(student.parent / "index.json")
    options = ("--manifest", manifest, "--index", student.parent / "index.json")
    done = export(student, "int8.onnx", "--int8", "--size", "8x8", *options)
    assert done.exit_code == 1
    assert "--int8 --size 8x8: expected the size of all views and val images" in done.output


def test_int8_is_measured_on_the_students_classes_alone(
    student: Path, manifest: Path, tiny_index: Index
) -> None:
    classes = replace(tiny_index.classes, names=tiny_index.class_names[::-1])
    replace(tiny_index, classes=classes).write(student.parent / "index.json")
    options = ("--manifest", manifest, "--index", student.parent / "index.json")
    done = export(student, "int8.onnx", "--int8", *options)
    assert done.exit_code == 1
    assert "has other classes than the dataset, or in another order" in done.output
    assert not (student.parent / "int8.onnx").exists()


@pytest.mark.slow
def test_predictions_of_a_graph_are_those_of_the_student(student: Path, tiny_index: Index) -> None:
    needs_the_extra()
    assert export(student, "model.onnx").exit_code == 0
    images, folder = Path(tiny_index.root), student.parent
    samples = [str(images / sample.image) for sample in tiny_index.splits["val"]]
    shares = []
    for name in ("model.pt", "model.onnx"):
        out = folder / f"{name}-out"
        words = ["predict", str(folder / name), *samples, "-o", str(out), "--device", "cpu"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        shares.append(json.loads((out / "shares.json").read_bytes())["images"])
    for name, of_torch in shares[0].items():
        assert [*shares[1][name].values()] == pytest.approx([*of_torch.values()], abs=1e-3)
    assert np.any([x != 0 for x in shares[0].values()])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("model.pb", (), "expected .onnx or .pt2; found model.pb"),
        ("model.onnx", ("--size", "512"), "expected HEIGHTxWIDTH"),
        ("model.onnx", ("--int8",), "--int8, --manifest and --index: expected all of them or none"),
    ],
)
def test_wrong_options_are_named(
    student: Path, name: str, options: tuple[str, ...], expected: str
) -> None:
    done = export(student, name, *options)
    assert done.exit_code == 2
    assert expected in done.output


def test_without_the_extra_it_says_what_to_install(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.onnx_network.find_spec", lambda name: None)
    done = export(student, "model.onnx")
    assert done.exit_code == 1
    assert "pip install '.[export]'" in done.output
    (student.parent / "graph.onnx").write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"onnxruntime: not installed"):
        OnnxNetwork(student.parent / "graph.onnx", CPU)


def test_what_is_no_graph_of_ours_is_refused(tmp_path: Path) -> None:
    needs_the_extra()
    (tmp_path / "graph.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"graph\.onnx: expected a student as ONNX"):
        OnnxNetwork(tmp_path / "graph.onnx", CPU)
    with pytest.raises(FileNotFoundError, match="no such file"):
        OnnxNetwork(tmp_path / "none.onnx", CPU)
