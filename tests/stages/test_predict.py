"""`cirkd predict`: what is written is what the student says, whatever holds the student."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.params import Params
from pipeline.datasets.classes import class_table
from pipeline.datasets.decoding import decode_image, decode_labels
from pipeline.evaluation import pictures
from pipeline.evaluation.inference import Inference, predict_classes
from pipeline.models.network import build_network
from pipeline.models.students import load_student, save_student
from stages.cli import main

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
IDS = (7, 11, 33)


def write_image(path: Path, height: int, width: int, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]


@pytest.fixture
def student(tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student of three classes, and images/ of two sizes, one of them turned by its EXIF."""
    tiny = Architecture("Tiny", "tiny_networks:tiny_student", "")
    monkeypatch.setitem(ARCHITECTURES, "tiny_student", tiny)
    settings = tiny_params.students["r18_ce"].model_copy(update={"architecture": "tiny_student"})
    path = tmp_path / "model.pt"
    save_student(build_network("tiny_student", 3), settings, class_table("abc", PALETTE, IDS), path)
    write_image(tmp_path / "images/frame_10.png", 37, 51)
    turned = Image.Exif()
    turned[0x0112] = 6
    write_image(tmp_path / "images/sub/frame_2.png", 40, 24, exif=turned)
    return path


def predict(student: Path, *arguments: object) -> Result:
    folder = student.parent
    words = [str(x) for x in (*arguments, "-o", folder / "out", "--device", "cpu")]
    return CliRunner().invoke(main, ["predict", str(student), *words])


def expected_classes(student: Path, image: Path, inference: Inference) -> np.ndarray:
    batch = torch.from_numpy(decode_image(image).copy()).permute(2, 0, 1).unsqueeze(0)
    return predict_classes(load_student(student).network, batch, inference)[0].numpy()


@pytest.mark.parametrize("options", [(), ("--ids",), ("--window", "16", "--flip")])
def test_pngs_are_what_the_student_predicts(student: Path, options: tuple[str, ...]) -> None:
    folder = student.parent
    done = predict(student, folder / "images", *options)
    assert done.exit_code == 0, done.output
    inference = Inference(window=16, flip=True) if "--flip" in options else Inference()
    values = np.array(IDS if "--ids" in options else range(3), np.uint8)
    counts = np.zeros(3, np.int64)
    for name in ("frame_10", "sub/frame_2"):
        classes = expected_classes(student, folder / f"images/{name}.png", inference)
        labels = decode_labels(folder / f"out/labels/{name}.png")
        assert np.array_equal(labels, values[classes])
        colours = decode_image(folder / f"out/colours/{name}.png")
        assert np.array_equal(colours, np.array(PALETTE, np.uint8)[classes])
        assert decode_image(folder / f"out/overlays/{name}.png").shape == colours.shape
        counts += np.bincount(classes.ravel(), minlength=3)
    assert decode_labels(folder / "out/labels/sub/frame_2.png").shape == (24, 40)  # turned
    shares = json.loads((folder / "out/shares.json").read_bytes())
    assert [*shares["images"]] == ["frame_10", "sub/frame_2"]
    assert [*shares["all"].values()] == pytest.approx([*counts / counts.sum()], abs=1e-6)
    assert (folder / "out/legend.png").is_file()


def test_what_is_no_image_is_named_and_the_rest_is_done(student: Path) -> None:
    folder = student.parent
    (folder / "images/broken.png").write_bytes(b"no image")
    done = predict(student, folder / "images", folder / "images/frame_10.png")
    assert done.exit_code == 1
    assert "2 of 3 images predicted" in done.output
    assert f"{folder}/images/broken.png: expected an image" in done.output
    again = predict(student, folder / "images/frame_10.png")
    assert again.exit_code == 0
    assert "3 files of predictions are overwritten" in again.output


def test_labels_that_are_no_predictions_stay(student: Path) -> None:
    """`-o data` beside data/images/ would take the place of data/labels/."""
    folder = student.parent
    truth = folder / "out/labels/frame_10.png"
    write_image(truth, 37, 51)
    before = truth.read_bytes()
    done = predict(student, folder / "images")
    assert done.exit_code == 1
    assert "labels/frame_10.png: is there, and no prediction" in done.output
    assert [path for path in (folder / "out").rglob("*") if path.is_file()] == [truth]
    assert truth.read_bytes() == before


def test_two_images_of_one_name_are_refused(student: Path) -> None:
    folder = student.parent
    shutil.copy(folder / "images/frame_10.png", folder / "images/frame_10.jpg")
    done = predict(student, folder / "images")
    assert done.exit_code == 1
    assert "would both be written as frame_10" in done.output
    assert not (folder / "out").exists()


def test_large_images_are_predicted_in_windows(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "LARGE_PX", 1000)
    monkeypatch.setattr(pictures, "WINDOW", 24)
    image = student.parent / "images/frame_10.png"
    assert predict(student, image).exit_code == 0
    labels = decode_labels(student.parent / "out/labels/frame_10.png")
    assert np.array_equal(labels, expected_classes(student, image, Inference(window=24)))


def test_a_pack_predicts_the_same_masks(student: Path) -> None:
    folder = student.parent
    images = folder / "images"
    assert predict(student, images).exit_code == 0
    masks = {path: path.read_bytes() for path in folder.glob("out/**/*.png")}
    assert len(masks) == 7
    pack = folder / "pack.zip"
    done = CliRunner().invoke(main, ["pack", str(student), "-o", str(pack), "--no-onnx"])
    assert done.exit_code == 0, done.output
    assert predict(pack, images).exit_code == 0
    assert {path: path.read_bytes() for path in masks} == masks
