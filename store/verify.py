"""Proving a store whole: metadata, coverage, sizes, digests, checksums, shapes, finite values."""

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np

from store.chunks import ZarrSource
from store.errors import StoreDamagedError, StoreError
from store.journal import UnitDigest
from store.layout import JOURNAL, open_files, unit_key
from store.schema import ArraySpec, StoreSpec, array_specs


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
    path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None
) -> list[Finding]:
    """Read everything a store should hold and list every fault; an empty list means it is whole.

    Damage never raises here, so that one fault does not hide the next.

    Raises:
        StoreNotFoundError: There is no store.
        StoreMismatchError: It is no store, or of another schema.
    """
    source = ZarrSource(open_files(path, storage_options))
    try:
        spec = source.spec()
    except StoreDamagedError as error:
        return [Finding(str(error), "zarr.json")]
    try:
        journal = source.journal()
    except StoreError as error:
        return [Finding(str(error), JOURNAL)]
    findings = [
        Finding("metadata was altered or is missing", key, array=key.partition("/")[0])
        for key in source.damaged_metadata(journal)
    ]
    checks = [
        dask.delayed(verify_unit)(source, spec, unit, journal.units.get(unit))
        for unit in range(spec.num_units)
    ]
    found = dask.compute(*checks, scheduler="threads")
    return findings + _strays(Path(path), spec) + [one for unit in found for one in unit]


def verify_unit(
    source: ZarrSource, spec: StoreSpec, unit: int, digest: UnitDigest | None
) -> list[Finding]:
    """List the faults of one unit."""
    first = spec.unit_records(unit)[0]
    if digest is None:
        return [Finding("the unit is missing", JOURNAL, unit, record=first)]
    specs = array_specs(spec)
    what = {name: _fault(source, array, unit, digest) for name, array in specs.items()}
    key = None if what["key"] else str(_unit_values(source, specs["key"], unit)[0])
    return [
        Finding(fault, unit_key(specs[name], unit), unit, name, first, key)
        for name, fault in what.items()
        if fault
    ]


def damaged_units(findings: list[Finding]) -> list[int]:
    """Return the units that must be written again."""
    return sorted({finding.unit for finding in findings if finding.unit is not None})


def _fault(source: ZarrSource, array: ArraySpec, unit: int, digest: UnitDigest) -> str | None:
    try:
        content = source.content(array, unit)
    except FileNotFoundError:
        return "the file is missing"
    expected = digest.num_bytes.get(array.name)
    if len(content) != expected:
        return f"the file has {len(content)} bytes in place of {expected}"
    if hashlib.sha256(content).hexdigest() != digest.sha256.get(array.name):
        return "the file is not the one that was written: its SHA-256 differs"
    try:
        values = _unit_values(source, array, unit)
    except StoreDamagedError as error:
        return f"the file cannot be decoded: {error.found}"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return "values are not finite"
    return None


def _unit_values(source: ZarrSource, array: ArraySpec, unit: int) -> np.ndarray:
    first = unit * array.unit_size
    rows = np.arange(min(array.unit_size, array.shape[0] - first))
    return np.stack(list(source.records(array, unit, rows)))


def _strays(root: Path, spec: StoreSpec) -> list[Finding]:
    """Files that no unit owns are harmless to readers, but nobody should have put them there.

    Only a local folder is listed; at a URL that may be impossible.
    """
    findings = []
    for name, array in array_specs(spec).items():
        owned = {unit_key(array, unit) for unit in range(spec.num_units)} | {f"{name}/zarr.json"}
        found = (f"{name}/{file.name}" for file in (root / name).glob("*"))
        findings += [
            Finding("a file that no unit owns", key, array=name)
            for key in found
            if key not in owned
        ]
    return findings
