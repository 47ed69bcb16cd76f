"""A class table as a YAML file: a dataset's own classes.yaml, or one of tables/."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.base import BaseConfig
from pipeline.config.yaml import read_yaml
from pipeline.datasets.decoding import RGB, UNKNOWN_COLOUR
from pipeline.datasets.errors import DatasetError, Finding
from pipeline.datasets.index import ClassTable
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
_COLOURS = TypeAdapter(tuple[Colour, ...])
_IDS = TypeAdapter(tuple[Byte, ...])


class ClassEntry(BaseConfig):
    """A class, but for what stands for it in label files."""

    name: Annotated[str, Field(min_length=1)]
    colour: Colour


class _ClassOfId(ClassEntry):
    id: Byte


class _ClassOfColours(ClassEntry):
    colours: Annotated[list[Colour], Field(min_length=1)] | None = None


class Table(BaseConfig):
    """A class table as it is written down."""

    classes: Sequence[ClassEntry]

    @abstractmethod
    def meanings(self) -> list[tuple[str, str]]:
        """List what stands in label files, each with the name of the class, or with void."""


class _Ids(Table):
    labels: Literal["ids", "colours"] = "ids"
    classes: Annotated[list[_ClassOfId], Field(min_length=1, max_length=VOID)]
    void: list[Byte]

    def meanings(self) -> list[tuple[str, str]]:
        ids = [
            *((entry.id, entry.name) for entry in self.classes),
            *((n, "void") for n in self.void),
        ]
        return [(f"id {value}", meaning) for value, meaning in ids]


class _Colours(Table):
    labels: Literal["colours"]
    classes: Annotated[list[_ClassOfColours], Field(min_length=1, max_length=UNKNOWN_COLOUR)]
    void: list[Colour]

    def colours(self) -> list[tuple[RGB, int]]:
        """List every colour of label images with its id."""
        colours = [entry.colours or [entry.colour] for entry in self.classes]
        ids = [*enumerate(colours), (VOID, self.void)]
        return [(colour, label_id) for label_id, group in ids for colour in group]

    def meanings(self) -> list[tuple[str, str]]:
        names = {VOID: "void", **{n: entry.name for n, entry in enumerate(self.classes)}}
        return [(f"colour {[*colour]}", names[label_id]) for colour, label_id in self.colours()]


T = TypeVar("T", bound=Table)


def class_table(
    names: Iterable[str],
    palette: Iterable[Iterable[int]] | None = None,
    label_ids: Iterable[int] | None = None,
) -> ClassTable:
    """Make a table of classes whose void is not known, as files of other rooms have them.

    Args:
        names: of K classes.
        palette: RGB of each; by default Pascal VOC's colours of classes 0..K-1.
        label_ids: what stands for each in label files; by default 0..K-1.

    Raises:
        ValueError: the three have not one entry a class, or an entry is no byte.
    """
    names = tuple(names)
    numbers = range(len(names))
    colours = _COLOURS.validate_python(
        tuple(map(voc_colour, numbers) if palette is None else palette)
    )
    ids = _IDS.validate_python(tuple(numbers if label_ids is None else label_ids))
    if not len(names) == len(colours) == len(set(ids)) == len(ids):
        raise ValueError(
            f"expected a colour and an id of its own for each of {len(names)} classes; "
            f"found {len(colours)} colours, {len(ids)} ids"
        )
    return ClassTable(names, colours, ids, ())


def voc_colour(number: int) -> RGB:
    """Return Pascal VOC's colour of a number: bits 0, 3, 6 are red's highest, and so on."""
    red, green, blue = (
        sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8))
        for channel in range(3)
    )
    return red, green, blue


def check_classes(what: str, known: Sequence[str], class_names: Sequence[str], hint: str) -> None:
    """Compare the classes that a network knows with a dataset's, in order.

    Letters and digits alone count: `__background__` is `background`.

    Args:
        what: the network, for the message.
        known: its classes.
        class_names: of the dataset.
        hint: what to do.

    Raises:
        ValueError: they differ.
    """
    if len(known) != len(class_names):
        raise ValueError(
            f"{what} knows {len(known)} classes, the dataset has {len(class_names)}; {hint}"
        )
    differing = [
        f"{k}: expected {theirs}, found {ours}"
        for k, (theirs, ours) in enumerate(zip(known, class_names, strict=True))
        if _letters(theirs) != _letters(ours)
    ]
    if differing:
        raise ValueError(
            f"{what} has other classes than the dataset, or in another order: "
            f"{', '.join(differing[:4])} ({len(differing)} in all); {hint}"
        )


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def official_table(name: str) -> ClassTable:
    """Read one of the tables that come with the package."""
    return read_classes(Path(__file__).with_name("tables") / f"{name}.yaml")


def read_classes(path: Path) -> ClassTable:
    """Read a class table; classes are numbered 0..K-1 in the order of the file.

    Raises:
        DatasetError: with a finding for every wrong entry.
    """
    table: _Ids | _Colours = read_table(path, _model_of)
    names = tuple(entry.name for entry in table.classes)
    palette = tuple(entry.colour for entry in table.classes)
    if isinstance(table, _Ids):
        ids = tuple(entry.id for entry in table.classes)
        return ClassTable(names, palette, ids, tuple(table.void))
    ids = tuple(range(len(names)))
    return ClassTable(names, palette, ids, (UNKNOWN_COLOUR, VOID), tuple(table.colours()))


def _model_of(raw: Any) -> type[_Ids] | type[_Colours]:  # not checked yet
    return _Colours if isinstance(raw, dict) and raw.get("labels") == "colours" else _Ids


def read_table(path: Path, model_of: Callable[[Any], type[T]]) -> T:
    """Read a class table of any model, which its content chooses.

    Raises:
        DatasetError: with a finding for every wrong entry.
    """
    try:
        raw = read_yaml(path)
        table = model_of(raw).model_validate(raw)
    except ValidationError as error:
        raise DatasetError(str(path.parent), _explain(path.name, error), EXAMPLE) from None
    except (OSError, ValueError) as error:
        finding = Finding(path.name, "unreadable", "a YAML file", str(error))
        raise DatasetError(str(path.parent), [finding], EXAMPLE) from error
    if findings := _repeated(path.name, table):
        raise DatasetError(str(path.parent), findings, EXAMPLE)
    return table


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
        return f"at most {issue['ctx']['max_length']} entries", f"{issue['ctx']['actual_length']}"
    return issue["msg"], f"{issue['input']!r:.80}"


def _repeated(file: str, table: Table) -> list[Finding]:
    names = [(f"name {entry.name}", f"class {n}") for n, entry in enumerate(table.classes)]
    found: dict[str, list[str]] = {}
    for value, meaning in (*names, *table.meanings()):
        found.setdefault(value, []).append(meaning)
    return [
        Finding(file, value, "one meaning", ", ".join(meanings))
        for value, meanings in found.items()
        if len(meanings) > 1
    ]
