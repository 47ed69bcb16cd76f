"""Any dataset as a folder: images/<split>/, labels/<split>/ matched by stem, and classes.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from pipeline.config.base import BaseConfig
from pipeline.config.datasets import ExternalConfig
from pipeline.config.yaml import read_yaml
from pipeline.datasets.errors import DatasetError, Finding
from pipeline.datasets.fingerprint import fingerprint_files
from pipeline.datasets.index import ClassTable
from pipeline.datasets.listing import Listing, pair_splits

FOLDERS = {split: (f"images/{split}", f"labels/{split}") for split in ("train", "val", "test")}
CLASSES_FILE = "classes.yaml"
EXAMPLE = """\
Write it like this:
  classes:
    - {id: 0, name: road, colour: [128, 64, 128]}
    - {id: 1, name: sky, colour: [70, 130, 180]}
  void: [255]"""

Table = TypeVar("Table", bound=BaseConfig)
Byte = Annotated[int, Field(ge=0, le=255)]


class Config(ExternalConfig):
    """A folder with images/<split>/, labels/<split>/ matched by stem, and classes.yaml."""


class ClassEntry(BaseConfig):
    """What classes.yaml says of a class, but for its ids."""

    name: Annotated[str, Field(min_length=1)]
    colour: Annotated[list[Byte], Field(min_length=3, max_length=3)]

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Return the colour, 0..255."""
        red, green, blue = self.colour
        return red, green, blue


class _Class(ClassEntry):
    id: Byte

    @property
    def ids(self) -> list[int]:
        return [self.id]


class _Classes(BaseConfig):
    classes: Annotated[list[_Class], Field(min_length=1, max_length=255)]
    void: list[Byte]


def list_samples(dataset: Config, pixels: Path) -> Listing:
    """Read classes.yaml and pair the files of every split; `pixels` stays unused.

    Raises:
        DatasetError: classes.yaml is missing or wrong, so no label can be judged.
    """
    root = Path(dataset.root)
    return pair_splits(root, read_classes(root), FOLDERS)


def fingerprint(dataset: Config) -> dict[str, Any]:  # JSON
    """Fingerprint the files and the class table, wherever the root lies."""
    folders = [name for pair in FOLDERS.values() for name in pair]
    return fingerprint_files(Path(dataset.root), folders, [CLASSES_FILE])


def read_classes(root: Path) -> ClassTable:
    """Read root/classes.yaml; classes are numbered 0..K-1 in the order of the file.

    Raises:
        DatasetError: with a finding for every wrong entry.
    """
    table = read_table(root, _Classes)
    return ClassTable(
        names=tuple(entry.name for entry in table.classes),
        palette=tuple(entry.rgb for entry in table.classes),
        label_ids=tuple(entry.id for entry in table.classes),
        void_ids=tuple(table.void),
    )


def read_table(root: Path, model: type[Table]) -> Table:
    """Read root/classes.yaml as a model with `classes`, each of a name and `ids`, and `void`.

    Raises:
        DatasetError: with a finding for every wrong entry.
    """
    try:
        table = model.model_validate(read_yaml(root / CLASSES_FILE))
    except ValidationError as error:
        raise DatasetError(str(root), _explain(error), EXAMPLE) from None
    except (OSError, ValueError) as error:
        finding = Finding(CLASSES_FILE, "unreadable", "a YAML file", str(error))
        raise DatasetError(str(root), [finding], EXAMPLE) from error
    if findings := _repeated(table):
        raise DatasetError(str(root), findings, EXAMPLE)
    return table


def _explain(error: ValidationError) -> list[Finding]:
    return [
        Finding(
            f"{CLASSES_FILE}: {'.'.join(str(part) for part in issue['loc']) or '(top level)'}",
            "wrong entry",
            issue["msg"],
            "nothing" if issue["type"] == "missing" else f"{issue['input']!r:.80}",
        )
        for issue in error.errors()
    ]


def _repeated(table: Any) -> list[Finding]:  # see read_table
    ids = [*(value for entry in table.classes for value in entry.ids), *table.void]
    names = [entry.name for entry in table.classes]
    repeated_ids = sorted({value for value in ids if ids.count(value) > 1})
    repeated_names = sorted({name for name in names if names.count(name) > 1})
    return [
        *(Finding(CLASSES_FILE, f"id {value}", "one meaning", "several") for value in repeated_ids),
        *(Finding(CLASSES_FILE, f"name {name}", "one class", "several") for name in repeated_names),
    ]
