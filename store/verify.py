"""Verifying a store: metadata, coverage, sizes, digests, checksums, shapes, finite values."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from store.arrays import ArraySpec
from store.errors import StoreDamagedError, StoreNotFoundError
from store.journal import UnitDigest, check_units
from store.layout import JOURNAL, METADATA
from store.parallel import map_units
from store.reader import Source, find_source
from store.schema import StoreSpec, array_specs

MAX_MISSING = 1000
"""Units that are listed one by one as missing."""


@dataclass(frozen=True)
class Finding:
    """One fault: what, in which file; unit, array, first record and its key where they apply."""

    what: str
    file: str
    unit: int | None = None
    array: str | None = None
    record: int | None = None
    key: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Describe the finding in JSON values."""
        return asdict(self)


def verify(
    path: str | os.PathLike[str],
    storage_options: dict[str, Any] | None = None,
    digest: str | None = None,
) -> list[Finding]:
    """Read everything a store should hold and list every fault; an empty list means it is whole.

    Damage never raises here, so that one fault does not hide the next. The store is read where it
    lies, never in local copies.

    Args:
        path: As `store.reader.open_store` takes it.
        storage_options: Options for fsspec, if `path` is a URL.
        digest: Of the store that should lie there, as a manifest has it.

    Raises:
        StoreNotFoundError: There is no store.
        StoreMismatchError: It is no store, or of another schema.
        StoreUnreachableError: Its URL does not answer.
    """
    return verify_source(find_source(path, storage_options), digest)


def verify_source(
    source: Source, digest: str | None = None, count: Callable[[], None] = lambda: None
) -> list[Finding]:
    """List every fault of a store in any file format: `verify` says how; `count` follows a unit."""
    try:
        spec = source.spec()
    except StoreDamagedError as error:
        return [Finding(str(error), error.where.removeprefix(f"{source.location}/"))]
    try:
        journal = source.journal()
    except (StoreNotFoundError, StoreDamagedError) as error:
        return [Finding(str(error), JOURNAL)]
    damaged = source.damaged_metadata(spec, journal)
    findings = [
        Finding("metadata was altered or is missing", key, array=key.partition("/")[0])
        for key in damaged
    ]
    if METADATA in damaged:
        return findings  # the sizes of all else are in it
    try:
        check_units(journal, spec, source.location)
    except StoreDamagedError as error:
        return [*findings, Finding(str(error), JOURNAL)]
    findings += [
        Finding("not a file of this store", key, array=key.partition("/")[0])
        for key in source.unknown_files(spec)
    ]
    finished = len(journal.units) == spec.num_units
    if finished and digest not in (None, journal.digest):
        findings.append(Finding(f"another store: digest {journal.digest}, not {digest}", JOURNAL))
    missing = (unit for unit in range(spec.num_units) if unit not in journal.units)
    findings += [
        Finding("the unit is missing", JOURNAL, unit, record=spec.unit_records(unit)[0])
        for unit in islice(missing, MAX_MISSING)
    ]
    by_unit = map_units(
        lambda unit: _verify_unit(source, spec, journal.units[unit]), sorted(journal.units), count
    )
    return findings + [finding for found in by_unit for finding in found]


def damaged_units(findings: list[Finding]) -> list[int]:
    """Return the units that must be written again."""
    return sorted({finding.unit for finding in findings if finding.unit is not None})


def _verify_unit(source: Source, spec: StoreSpec, digest: UnitDigest) -> list[Finding]:
    unit = digest.unit
    first, specs = spec.unit_records(unit)[0], array_specs(spec)
    checked = {name: _fault(source, array, unit, digest) for name, array in specs.items()}
    faults = {name: fault for name, fault in checked.items() if fault}
    key = None
    if faults and "key" not in faults:
        key = str(source.read_verified(specs["key"], unit, digest)[0])
    return [
        Finding(fault, source.name(specs[name], unit), unit, name, first, key)
        for name, fault in faults.items()
    ]


def _fault(source: Source, array: ArraySpec, unit: int, digest: UnitDigest) -> str | None:
    try:
        values = source.read_verified(array, unit, digest)
    except StoreDamagedError as error:
        against = {"expected": error.expected, "found": error.found}
        return ", ".join(
            [error.what, *(f"{word} {it}" for word, it in against.items() if it is not None)]
        )
    finite = values.dtype.kind != "f" or np.isfinite(values).all()
    return None if finite else "values are not finite"
