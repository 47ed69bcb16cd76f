"""The journal of a store: which units are complete, and what their files must contain.

One JSON object a line, each with the CRC-32 of the rest of itself. The first line is the header; a
"unit" line is written after that unit's files are on disk; a "revoked" line takes one back. Only
the holder of the lock writes. A last line without its newline is a write that was cut off: it is
ignored.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import StoreDamagedError, StoreNotFoundError
from store.files import replace_file
from store.layout import JOURNAL, REBUILD, RESUME, Files, hint_at
from store.schema import canonical_json


@dataclass(frozen=True)
class UnitDigest:
    """What a written unit is on disk: size and SHA-256 of its file in every array."""

    unit: int
    num_bytes: Mapping[str, int]
    sha256: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Describe the unit in JSON values."""
        return {"unit": self.unit, "num_bytes": dict(self.num_bytes), "sha256": dict(self.sha256)}


@dataclass(frozen=True)
class Journal:
    """A journal as read.

    Attributes:
        metadata: Metadata file -> its SHA-256.
        units: The complete units.
        num_bytes: Length of the journal without a last line that was cut off.
    """

    metadata: Mapping[str, str]
    units: Mapping[int, UnitDigest]
    num_bytes: int

    @property
    def digest(self) -> str:
        """SHA-256 over all units, in their order: equal content gives an equal digest."""
        units = [self.units[unit].to_dict() for unit in sorted(self.units)]
        return hashlib.sha256(canonical_json(units).encode()).hexdigest()


def read_journal(files: Files) -> Journal:
    """Read the journal of a store.

    Raises:
        StoreNotFoundError: There is none.
        StoreDamagedError: A line is not as it was written.
    """
    where = f"{files.location}/{JOURNAL}"
    try:
        content = files.read(JOURNAL)
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = hint_at(where, RESUME)
        raise StoreNotFoundError(
            "not a store", where=where, expected="a journal", found="none", hint=hint
        ) from error
    return parse_journal(content, where)


def parse_journal(content: bytes, where: str) -> Journal:
    """Read a journal out of its bytes; `read_journal` says what may be wrong with them."""
    lines = content.split(b"\n")[:-1]
    entries = [_decode_line(line, where, number) for number, line in enumerate(lines, start=1)]
    if not entries or "metadata" not in entries[0]:
        raise StoreDamagedError(
            "the journal has no header", where=where, hint=hint_at(where, REBUILD)
        )
    units: dict[int, UnitDigest] = {}
    for entry in entries[1:]:
        if "revoked" in entry:
            units.pop(entry["revoked"], None)
        else:
            units[entry["unit"]] = UnitDigest(**entry)
    return Journal(entries[0]["metadata"], units, sum(len(line) + 1 for line in lines))


def create_journal(root: Path, metadata: Mapping[str, str]) -> None:
    """Write a journal that holds only its header: from here on the folder is a store."""
    replace_file(root / JOURNAL, _encode_line({"metadata": dict(metadata)}))


def append_entry(root: Path, *entries: Mapping[str, Any]) -> None:
    """Add a line for each entry and force them to the disk."""
    with open(root / JOURNAL, "ab") as file:
        file.writelines(map(_encode_line, entries))
        file.flush()
        os.fsync(file.fileno())


def _encode_line(entry: Mapping[str, Any]) -> bytes:
    return canonical_json({**entry, "crc32": _checksum(entry)}).encode() + b"\n"


def _decode_line(line: bytes, where: str, number: int) -> dict[str, Any]:
    hint, where = hint_at(where, REBUILD), f"{where}, line {number}"
    try:
        entry = json.loads(line)
        found = entry.pop("crc32")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise StoreDamagedError("journal line is not readable", where=where, hint=hint) from error
    expected = _checksum(entry)
    if found != expected:
        raise StoreDamagedError(
            "journal line was altered", where=where, expected=expected, found=found, hint=hint
        )
    return dict(entry)


def _checksum(entry: Mapping[str, Any]) -> int:
    return zlib.crc32(canonical_json(entry).encode())
