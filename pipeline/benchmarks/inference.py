"""Milliseconds of a full-size prediction, by torch and by onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from pipeline.benchmarks.timing import interleaved_medians
from pipeline.evaluation.inference import Inference, Predictor, predict_classes
from pipeline.models.export import Size, export_student, random_image
from pipeline.models.onnx_network import OnnxNetwork
from pipeline.models.students import Student
from pipeline.runtime.environment import describe_device


def benchmark(
    students: dict[str, Student],
    sizes: Sequence[Size],
    device: torch.device,
    num_rounds: int,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[dict[str, object]]:  # JSON
    """Time predictions of one random image, all students and runtimes of a size in turn.

    Args:
        students: by name.
        sizes: height and width of images.
        device: where.
        num_rounds: timed rounds.
        progress: told what is done next, and what onnxruntime cannot run.

    Yields:
        After each size the figures until then: the device, and for each size and each student by
        runtime `ms` (the median) and `images_per_s`.
    """
    figures: dict[str, object] = {"device": describe_device(device), "num_rounds": num_rounds}
    for size in sizes:
        name = f"{size[0]}x{size[1]}"
        progress(name)
        image = random_image(1, size).permute(0, 3, 1, 2).to(device)
        calls = {
            f"{student} {runtime}": partial(_predict, predictor, image, precision)
            for student, loaded in students.items()
            for runtime, precision, predictor in _predictors(loaded, size, device, progress)
        }
        seconds = interleaved_medians(calls, num_rounds)
        figures[name] = {
            call: {"ms": 1000 * median, "images_per_s": 1 / median}
            for call, median in seconds.items()
        }
        yield figures


def _predict(predictor: Predictor, image: Tensor, precision: str) -> None:
    predict_classes(predictor, image, Inference(precision))[0, 0, 0].item()  # waits for the device


def _predictors(
    student: Student, size: Size, device: torch.device, progress: Callable[[str], None]
) -> Iterator[tuple[str, str, Predictor]]:
    """List a student by runtime, with its precision; exported to the size of images."""
    if find_spec("onnxruntime") is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            student.network.cpu()
            try:
                export_student(student, path, path.suffix, size)
                yield "onnxruntime", "float32", OnnxNetwork(path, device)
            except ValueError as error:
                progress(str(error))
    yield "torch", student.precision, student.network.to(device)
