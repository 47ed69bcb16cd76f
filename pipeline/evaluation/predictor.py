"""What predicts, from any file that holds a student."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from pipeline.datasets.index import ClassTable
from pipeline.evaluation.inference import Predictor
from pipeline.models.onnx_network import OnnxNetwork
from pipeline.models.students import load_student


def load_predictor(
    path: Path, device: torch.device, named: Collection[str] = ()
) -> tuple[Predictor, str, ClassTable]:
    """Load a student with the precision it predicts in, and its classes.

    Args:
        path: model.pt, a pack, or what `cirkd export` wrote as .onnx.
        device: to predict on.
        named: architectures of params.yaml, the only import paths that may be called.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no student.
    """
    if path.suffix == ".onnx":
        network = OnnxNetwork(path, device)
        return network, "float32", network.classes
    student = load_student(path, named)
    return student.network.to(device), student.precision, student.classes
