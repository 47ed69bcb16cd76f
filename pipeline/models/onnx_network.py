"""Students that `cirkd export` wrote as ONNX, run by onnxruntime."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.datasets.classes import class_table
from store.files import reading

WHAT, HINT = "a student as ONNX", "make it again with `cirkd export`"


class OnnxNetwork:
    """An exported graph: images of any size, or of one, to logits at their size.

    Args:
        path: the file.
        device: where it runs; on a GPU if onnxruntime was built for it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no graph of `cirkd export`, or onnxruntime is not installed.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        require("onnxruntime")
        with reading(path, WHAT, HINT):
            path.stat()  # onnxruntime's own error has no type
            self._session = _open(path, device)
            texts = self._session.get_modelmeta().custom_metadata_map
            metadata: dict[str, Any] = {name: json.loads(text) for name, text in texts.items()}
            self.architecture = str(metadata["architecture"])
            self.classes = class_table(
                *(metadata[name] for name in ("class_names", "palette", "label_ids"))
            )
            found = self._session.get_outputs()[0].shape[1]
            if found != len(self.classes.names):
                raise ValueError(f"{found} classes and {len(self.classes.names)} names")
            self.size = None if metadata["size"] is None else tuple(metadata["size"])
            self._align_corners = metadata["preprocessing"].get("align_corners", False)

    def predict_logits(self, image: Tensor, precision: str) -> Tensor:
        """Score every class of every pixel.

        Args:
            image: uint8 RGB [B, 3, H, W].
            precision: a graph has its own.

        Returns:
            float32 [B, K, H, W].

        Raises:
            ValueError: the graph takes images of another size.
        """
        found = tuple(image.shape[-2:])
        if self.size not in (None, found):
            expected = "x".join(map(str, self.size or ()))
            raise ValueError(
                f"expected images of {expected}, the size that the graph was exported with; "
                f"found {found[0]}x{found[1]}"
            )
        pixels = image.permute(0, 2, 3, 1).cpu().numpy()
        (logits,) = self._session.run(["logits"], {"image": pixels})
        return torch.from_numpy(logits).to(image.device)

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits bilinearly to height and width, by the rule of the weights."""
        return functional.interpolate(
            logits, size, mode="bilinear", align_corners=self._align_corners
        )


def _open(path: Path, device: torch.device) -> Any:  # onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # its errors are raised, too
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    usable = set(onnxruntime.get_available_providers())
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in usable]
    return onnxruntime.InferenceSession(path, options, providers=providers)


def require(*packages: str) -> None:
    """Refuse to go on without packages of the extra `export`.

    Raises:
        ValueError: naming those that are not installed.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ValueError(
            f"{', '.join(missing)}: not installed; install them with `pip install '.[export]'`"
        )
