"""The manifest: the small file that names a finished store; DVC tracks it in the store's place."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from store.errors import StoreMismatchError, StoreNotFoundError
from store.files import replace_file
from store.journal import Journal
from store.schema import StoreSpec


@dataclass(frozen=True)
class Manifest:
    """Where a finished store lies and what it must contain (no timestamps: it is reproducible)."""

    path: str
    fingerprint: str
    num_records: int
    digest: str
    schema_version: int

    @classmethod
    def of(cls, path: str, spec: StoreSpec, journal: Journal) -> Self:
        """Describe the finished store at `path`."""
        return cls(path, spec.fingerprint, spec.num_records, journal.digest, spec.schema_version)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, whole or not at all."""
        content = json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
        replace_file(Path(path), content.encode())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a manifest.

        Raises:
            StoreNotFoundError: There is no such file.
            StoreMismatchError: The file is not a manifest.
        """
        hint = "rerun `dvc repro -s extract`, or `cirkd store adopt` for a store made elsewhere"
        try:
            manifest = cls(**json.loads(Path(path).read_bytes()))
            kinds: dict[str, Any] = {one.name: one.type for one in fields(cls)}
            if not all(isinstance(getattr(manifest, name), kinds[name]) for name in kinds):
                raise ValueError("a value is of another type")
            return manifest
        except FileNotFoundError as error:
            raise StoreNotFoundError(
                "no manifest", where=os.fspath(path), expected="a file", found="none", hint=hint
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreMismatchError(
                "not a manifest",
                where=os.fspath(path),
                expected="the JSON of a manifest",
                found=error,
                hint=hint,
            ) from error
