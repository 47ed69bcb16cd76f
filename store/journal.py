"""The journal of a store: which units are complete, and what their files must contain.

One JSON object a line, each with the CRC-32 of the rest of itself. The first line is the header; a
"unit" line is written after that unit's files are on disk; a "revoked" line takes one back. Only
the holder of the lock writes. A last line without its newline is a write that was cut off: it is
ignored.
"""

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import StoreDamagedError, StoreNotFoundError, StoreUnreachableError
from store.files import replace_file
from store.layout import JOURNAL, REBUILD, RESUME, Files, hint_at
from store.schema import StoreSpec, array_specs, canonical_json


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
        """Return the SHA-256 over all units in their order, equal for equal content."""
        units = [self.units[unit].to_dict() for unit in sorted(self.units)]
        return hashlib.sha256(canonical_json(units).encode()).hexdigest()


def read_journal(files: Files) -> Journal:
    """Read the journal of a store.

    Raises:
        StoreNotFoundError: There is none.
        StoreDamagedError: It cannot be read, or a line is not as it was written.
    """
    where = f"{files.location}/{JOURNAL}"
    try:
        content = files.read(JOURNAL)
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = hint_at(where, RESUME)
        raise StoreNotFoundError(
            "not a store", where=where, expected="a journal", found="none", hint=hint
        ) from error
    except StoreUnreachableError:
        raise
    except OSError as error:
        raise StoreDamagedError(
            "the journal cannot be read", where=where, found=error, hint=hint_at(where, REBUILD)
        ) from error
    return parse_journal(content, where)


def parse_journal(content: bytes, where: str) -> Journal:
    """Read a journal out of its bytes; `read_journal` says what may be wrong with them."""
    lines = content.split(b"\n")[:-1]
    entries = [_decode_line(line, where, number) for number, line in enumerate(lines, start=1)]
    units: dict[int, UnitDigest] = {}
    match entries:
        case [{"metadata": dict(metadata), **others}, *changes] if not others:
            pass
        case _:
            raise StoreDamagedError(
                "the journal has no header", where=where, hint=hint_at(where, REBUILD)
            )
    for number, entry in enumerate(changes, start=2):
        match entry:
            case {"revoked": int(unit), **others} if not others:
                units.pop(unit, None)
            case {
                "unit": int(unit),
                "num_bytes": dict(num_bytes),
                "sha256": dict(sha256),
                **others,
            } if not others:
                units[unit] = UnitDigest(unit, num_bytes, sha256)
            case _:
                raise StoreDamagedError(
                    "journal line says nothing of a unit",
                    where=f"{where}, line {number}",
                    found=sorted(entry),
                    hint=hint_at(where, REBUILD),
                )
    return Journal(metadata, units, sum(len(line) + 1 for line in lines))


def check_units(journal: Journal, spec: StoreSpec, where: str) -> None:
    """Compare the units of a journal with the schema.

    Raises:
        StoreDamagedError: A unit is none of the store's, or of other arrays.
    """
    arrays = array_specs(spec).keys()
    for unit in journal.units.values():
        sizes, hashes = unit.num_bytes, unit.sha256
        fits = (
            0 <= unit.unit < spec.num_units
            and sizes.keys() == hashes.keys() == arrays
            and all(isinstance(size, int) for size in sizes.values())
        )
        if not fits:
            raise StoreDamagedError(
                "the journal names a unit that the store cannot have",
                where=f"{where}, unit {unit.unit}",
                expected=f"units 0 to {spec.num_units - 1} of {len(arrays)} arrays",
                found=f"unit {unit.unit} of {len(sizes)} arrays",
                hint=hint_at(where, REBUILD),
            )


def create_journal(root: Path, metadata: Mapping[str, str]) -> None:
    """Write a journal that holds only its header: from here on the folder is a store."""
    replace_file(root / JOURNAL, _encode_line({"metadata": dict(metadata)}))


def append_entry(root: Path, *entries: Mapping[str, Any]) -> None:
    """Add a line for each entry and force them to the disk; what does not fit is taken back."""
    lines = b"".join(map(_encode_line, entries))
    with open(root / JOURNAL, "ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, "no room for a whole line", file.name)
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise


def _encode_line(entry: Mapping[str, Any]) -> bytes:
    return canonical_json({**entry, "crc32": _checksum(entry)}).encode() + b"\n"


def _decode_line(line: bytes, where: str, number: int) -> dict[str, Any]:
    hint, where = hint_at(where, REBUILD), f"{where}, line {number}"
    try:
        entry = json.loads(line)
        found = entry.pop("crc32")
        expected = _checksum(entry)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamagedError("journal line is not readable", where=where, hint=hint) from error
    if found != expected:
        raise StoreDamagedError(
            "journal line was altered", where=where, expected=expected, found=found, hint=hint
        )
    return dict(entry)


def _checksum(entry: Mapping[str, Any]) -> int:
    return zlib.crc32(canonical_json(entry).encode())
