"""What every section of params.yaml is made of: closed, immutable models and their field types."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

T = TypeVar("T")

STRIDE = 8
"""The output stride that our own networks are built with; sides of crops are multiples of it."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
"""A part of paths and of command lines, so nothing that a shell or a file system takes apart."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Side = Annotated[int, Field(ge=2 * STRIDE, lt=2**16, multiple_of=STRIDE)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16", "float16"]


class BaseConfig(BaseModel):
    """Immutable, strict about types, finite, and closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def explain(error: ValidationError) -> list[str]:
    """Put every finding into a line: where, what is expected, what was found."""
    lines = []
    for finding in error.errors():
        # Which member of a union was tried is no key: such names stand in angle brackets.
        keys = [str(part) for part in finding["loc"] if not str(part).startswith("<")]
        where = ".".join(keys) or "(top level)"
        found = "" if finding["type"] == "missing" else f"; found {finding['input']!r:.80}"
        lines.append(f"{where}: {finding['msg']}{found}")
    return lines


def validate(kind: type[T], raw: object) -> T:
    """Make a dataclass of what a JSON file held.

    Raises:
        ValueError: with every finding, in one line.
    """
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        raise ValueError(", ".join(explain(error))) from None


def one_of(names: Collection[str]) -> AfterValidator:
    """Accept a string that is among `names` when it is checked."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return name

    return AfterValidator(check)
