"""The scalars of a training for TensorBoard, beside its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WriteScalars = Callable[[Mapping[str, Any]], None]
"""Takes a line of the log."""


@contextmanager
def open_scalars(folder: Path | None, start_step: int) -> Iterator[WriteScalars]:
    """Open a folder that TensorBoard reads; without one, nothing is written anywhere.

    Args:
        folder: of this training alone.
        start_step: steps done; what a killed run has written after them is hidden.
    """
    if folder is None:
        yield lambda line: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder, purge_step=start_step + 1) as writer:

        def write(line: Mapping[str, Any]) -> None:
            terms = {f"terms/{name}": value for name, value in line["terms"].items()}
            others = ("total", "learning_rate", "step_s", "wait_s")
            for name, value in {**terms, **{name: line[name] for name in others}}.items():
                writer.add_scalar(name, value, line["step"])

        yield write
