"""The options of commands that predict full-size images."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.evaluation.inference import Inference

Command = Callable[..., None]


def _numbers(context: click.Context, option: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers such as 0.5,1,1.5; found {text}") from None


batch_option = click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Images of one size that are predicted together; more keep a GPU busy.",
)
"""Above `inference_options`, of a command that forms batches."""


def parse_size(text: str) -> tuple[int, int]:
    """Parse a height and width such as 512x1024."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise click.BadParameter(f"expected HEIGHTxWIDTH, such as 512x1024; found {text}")
    return int(sides[0]), int(sides[1])


def named_architectures(params_path: Path) -> frozenset[str]:
    """Return the architectures that params.yaml names: the only import paths files may hold.

    One that is none of ours, as another project of DVC has, names nothing.
    """
    from pipeline.config.params import ParamsError, load_params

    try:
        return frozenset(load_params(params_path).architectures if params_path.exists() else ())
    except ParamsError:
        return frozenset()


def inference_options(function: Command) -> Command:
    """Give a command the options of `Inference`, as one argument `infer`, of a precision."""

    @wraps(function)
    def command(
        *,
        scales: tuple[float, ...],
        flip: bool,
        window: int | None,
        overlap: float,
        batch_size: int = 1,
        **others: object,
    ) -> None:
        def infer(precision: str) -> Inference:
            from pipeline.evaluation.inference import Inference

            return Inference(precision, scales, flip, window, overlap, batch_size)

        function(infer=infer, **others)

    for option in (
        click.option(
            "--overlap",
            type=click.FloatRange(0, 1, max_open=True),
            default=1 / 3,
            show_default="1/3",
            help="Share of a window that the next one covers again.",
        ),
        click.option(
            "--window",
            type=click.IntRange(min=1),
            help="Side in pixels of windows slid over large images: memory is bounded by a row.",
        ),
        click.option("--flip", is_flag=True, help="Average with the mirrored image."),
        click.option(
            "--scales",
            callback=_numbers,
            metavar="NUMBERS",
            default="1",
            show_default=True,
            help="Average over these sizes of the image, e.g. 0.5,0.75,1,1.25,1.5,1.75.",
        ),
    ):
        command = option(command)
    return command
