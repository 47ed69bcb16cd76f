"""What every section of params.yaml is made of: closed, immutable models and their field types."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


def one_of(names: Collection[str]) -> AfterValidator:
    """Accept a string that is among `names` when it is checked."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return name

    return AfterValidator(check)
