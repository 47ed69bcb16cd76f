"""A class table as a YAML file: a dataset's own classes.yaml, or one of tables/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.base import BaseConfig
from pipeline.config.yaml import read_yaml
from pipeline.datasets.errors import DatasetError, Finding
from pipeline.datasets.index import RGB, UNKNOWN_COLOUR, ClassTable
from store.schema import VOID

EXAMPLE = """\
Write it like this:
  classes:
    - {id: 0, name: road, colour: [128, 64, 128]}
    - {id: 1, name: sky, colour: [70, 130, 180]}
  void: [255]
or, where label images hold the colours themselves, like this:
  labels: colours
  classes:
    - {name: road, colour: [128, 64, 128]}
    - {name: sky, colour: [70, 130, 180]}
  void: [[0, 0, 0]]"""

Byte = Annotated[int, Field(ge=0, le=255)]
Colour = Annotated[tuple[Byte, Byte, Byte], Field(strict=False)]
"""Strict types know no list, which YAML has, as a tuple."""


class ClassEntry(BaseConfig):
    """A class, but for what stands for it in label files."""

    name: Annotated[str, Field(min_length=1)]
    colour: Colour


class _ClassOfId(ClassEntry):
    id: Byte


class _ClassOfColours(ClassEntry):
    colours: Annotated[list[Colour], Field(min_length=1)] | None = None


class _Ids(BaseConfig):
    labels: Literal["ids", "colours"] = "ids"
    classes: Annotated[list[_ClassOfId], Field(min_length=1, max_length=VOID)]
    void: list[Byte]


class _Colours(BaseConfig):
    labels: Literal["colours"]
    classes: Annotated[list[_ClassOfColours], Field(min_length=1, max_length=UNKNOWN_COLOUR)]
    void: list[Colour]


def official_table(name: str) -> ClassTable:
    """Read one of the tables that come with the package."""
    return read_classes(Path(__file__).with_name("tables") / f"{name}.yaml")


def read_classes(path: Path) -> ClassTable:
    """Read a class table; classes are numbered 0..K-1 in the order of the file.

    Raises:
        DatasetError: with a finding for every wrong entry.
    """
    try:
        raw = read_yaml(path)
        colours = isinstance(raw, dict) and raw.get("labels") == "colours"
        table = _Colours.model_validate(raw) if colours else _Ids.model_validate(raw)
    except ValidationError as error:
        raise DatasetError(str(path.parent), _explain(path.name, error), EXAMPLE) from None
    except (OSError, ValueError) as error:
        finding = Finding(path.name, "unreadable", "a YAML file", str(error))
        raise DatasetError(str(path.parent), [finding], EXAMPLE) from error
    if findings := _repeated(path.name, table):
        raise DatasetError(str(path.parent), findings, EXAMPLE)
    names = tuple(entry.name for entry in table.classes)
    palette = tuple(entry.colour for entry in table.classes)
    if isinstance(table, _Ids):
        ids = tuple(entry.id for entry in table.classes)
        return ClassTable(names, palette, ids, tuple(table.void))
    return ClassTable(
        names,
        palette,
        label_ids=tuple(range(len(names))),
        void_ids=(UNKNOWN_COLOUR, VOID),
        colours=tuple(_label_colours(table)),
    )


def _label_colours(table: _Colours) -> list[tuple[RGB, int]]:
    """List every colour of label images with its id."""
    return [
        *(
            (colour, n)
            for n, entry in enumerate(table.classes)
            for colour in entry.colours or [entry.colour]
        ),
        *((colour, VOID) for colour in table.void),
    ]


def _explain(file: str, error: ValidationError) -> list[Finding]:
    return [
        Finding(
            f"{file}: {'.'.join(str(part) for part in issue['loc']) or '(top level)'}",
            "wrong entry",
            *_expected_and_found(issue),
        )
        for issue in error.errors()
    ]


def _expected_and_found(issue: ErrorDetails) -> tuple[str, str]:
    if issue["type"] == "missing":
        return issue["msg"], "nothing"
    if issue["type"] == "too_long":  # labels are stored as bytes, of which void takes one
        return f"at most {issue['ctx']['max_length']}", f"{issue['ctx']['actual_length']}"
    return issue["msg"], f"{issue['input']!r:.80}"


def _repeated(file: str, table: _Ids | _Colours) -> list[Finding]:
    meanings = [(f"name {entry.name}", f"class {n}") for n, entry in enumerate(table.classes)]
    if isinstance(table, _Ids):
        meanings += [(f"id {entry.id}", entry.name) for entry in table.classes]
        meanings += [(f"id {value}", "void") for value in table.void]
    else:
        names = {VOID: "void", **{n: entry.name for n, entry in enumerate(table.classes)}}
        meanings += [(f"colour {[*colour]}", names[n]) for colour, n in _label_colours(table)]
    by_value: dict[str, list[str]] = {}
    for value, meaning in meanings:
        by_value.setdefault(value, []).append(meaning)
    return [
        Finding(file, value, "one meaning", ", ".join(found))
        for value, found in by_value.items()
        if len(found) > 1
    ]
