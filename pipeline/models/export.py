"""Students as graphs that run without this project: ONNX, or torch.export's own file.

Normalisation, padding to the stride and the final upsampling lie inside the graph.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pipeline.models.onnx_network import OnnxNetwork, require
from pipeline.models.students import Student, describe_classes
from pipeline.runtime.rng import torch_generator

Size = tuple[int, int]
"""Height and width."""
SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-3
"""Of logits: float32 sums in another order stay far below it."""
TRACED: Size = (144, 176)
COMPARED: tuple[Size, ...] = ((129, 161), (192, 136), (131, 260))
"""Sizes that a graph of any size is compared at: with and without padding, none of them traced."""
CPU = torch.device("cpu")


class Graph(nn.Module):
    """A student from bytes to classes, in float32.

    Args:
        student: whose network is taken.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.network = student.network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 RGB [N, H, W, 3] to logits float32 [N, K, H, W] and classes uint8 [N, H, W]."""
        logits = self.network.predict_logits(image.permute(0, 3, 1, 2), "float32")
        return logits, logits.argmax(dim=1).to(torch.uint8)


@dataclass(frozen=True)
class Agreement:
    """How a graph's outputs differ from the student's on images of one size.

    Attributes:
        size: of the images.
        difference: the largest of any logit.
        equal: share of the pixels that are given the same class.
    """

    size: Size
    difference: float
    equal: float


def export_student(student: Student, path: Path, suffix: str, size: Size | None) -> None:
    """Write a student as a graph whose number of images, height and width may vary.

    Args:
        student: on the CPU.
        path: the file.
        suffix: `.onnx` or `.pt2`.
        size: that images must have then; None for any.

    Raises:
        ValueError: the network cannot be traced so, or a package of the extra is missing.
    """
    if suffix == ".onnx":
        require("onnx", "onnxscript", "onnxruntime")
    try:
        _write(student, path, suffix, size)
    except OSError:
        raise
    except Exception as error:  # torch raises a dozen kinds of them, with the graph in their text
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{_name(student, size)}: {reason:.300}") from error


def _write(student: Student, path: Path, suffix: str, size: Size | None) -> None:
    program, metadata = _trace(student, size), _describe(student, size)
    if suffix == ".pt2":
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=metadata)
        return
    names = ["logits", "classes"]
    written: Any = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["image"], output_names=names
    )
    for node in written.model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's traces, with paths of this machine
    written.model.metadata_props.update(metadata)
    written.save(path, external_data=False)


def _trace(student: Student, size: Size | None) -> ExportedProgram:
    image = random_image(2, size or TRACED)
    varying = (0,) if size else (0, 1, 2)
    # A copy, because torch.export.save warns of weights in another memory format.
    graph = deepcopy(Graph(student)).to(memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        graph(image)  # what is cached is made of real tensors
        return torch.export.export(
            graph, (image,), dynamic_shapes={"image": dict.fromkeys(varying, Dim.DYNAMIC)}
        )


def _name(student: Student, size: Size | None) -> str:
    hint = "" if size else " with sizes that vary; give --size HxW"
    return f"{student.network.architecture} cannot be exported{hint}"


def _describe(student: Student, size: Size | None) -> dict[str, str]:
    """Return the metadata of a graph: JSON by name."""
    network = student.network
    values = {
        "architecture": network.architecture,
        **describe_classes(student.classes),
        "preprocessing": network.preprocessing.describe(),
        "input": "uint8 RGB [N, H, W, 3]; normalisation and upsampling are in the graph",
        "size": size,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def compare(student: Student, path: Path, suffix: str, size: Size | None) -> Iterator[Agreement]:
    """Compare a graph with the student it was made of, on random images of several sizes.

    Args:
        student: on the CPU.
        path: of the graph.
        suffix: `.onnx` or `.pt2`.
        size: that it was exported with.

    Raises:
        ValueError: the graph cannot be run at a size.
    """
    run = _open(path, suffix)
    for number, one in enumerate([size] if size else COMPARED):
        image = random_image(1 + number % 2, one)
        with torch.inference_mode():
            expected, classes = Graph(student)(image)
            try:
                logits = run(image)
            except Exception as error:  # onnxruntime's have no type of their own
                raise ValueError(f"{_name(student, size)}: {error!s:.300}") from error
        equal = (logits.argmax(1) == classes).float().mean()
        yield Agreement(one, (logits - expected).abs().max().item(), equal.item())


def _open(path: Path, suffix: str) -> Callable[[Tensor], Tensor]:
    """Return what maps images [N, H, W, 3] to logits."""
    if suffix == ".onnx":
        network = OnnxNetwork(path, CPU)
        return lambda image: network.predict_logits(image.permute(0, 3, 1, 2), "float32")
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda image: module(image)[0]


def random_image(batch: int, size: Size) -> Tensor:
    """Draw bytes [B, H, W, 3], the same for the same size."""
    generator = torch_generator(0, "export", *size)
    return torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8, generator=generator)


def quantise(path: Path, images: Iterable[NDArray[np.uint8]], destination: Path) -> None:
    """Write a graph with weights and activations in 8 bits.

    Args:
        path: of the ONNX graph in float32.
        images: uint8 RGB [N, H, W, 3] each, whose activations decide the ranges.
        destination: the file.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image}

    quantize_static(path, destination, Images(), per_channel=True)
    model, original = (onnx.load(file) for file in (destination, path))
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    onnx.save(model, destination)
