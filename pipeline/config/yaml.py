"""YAML as our own files need it: one document of bounded size and depth, each value written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

MAX_BYTES = 100_000
MAX_DEPTH = 20
MAX_SCALAR = 1000


def read_yaml(path: Path) -> Any:  # not checked yet
    """Read one YAML 1.2 document (`1e-4` is a number, as it is for DVC).

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: there is something else than a YAML file within the bounds above.
    """
    if path.exists() and not path.is_file():  # reading a FIFO would wait for ever
        raise ValueError("a folder, or something else that is no file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes; found {path.stat().st_size}")
    try:
        text = path.read_text(encoding="utf-8")
        _check_bounds(text)
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ValueError(f"not readable as YAML: {error}") from error


def _check_bounds(text: str) -> None:
    """Refuse what takes few bytes here and much time or stack in whoever reads it."""
    depth = 0
    for event in YAML(typ="safe").parse(text):
        where = f"line {event.start_mark.line + 1}"
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"{where}: nested more than {MAX_DEPTH} deep")
        if isinstance(event, AliasEvent):
            raise ValueError(f"{where}: *{event.anchor} is an alias; write its value out")
        if isinstance(event, ScalarEvent) and len(event.value) > MAX_SCALAR:
            raise ValueError(f"{where}: a value of more than {MAX_SCALAR} characters")
