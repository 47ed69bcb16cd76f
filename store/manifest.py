"""The manifest: the small file that names a finished store; DVC tracks it in the store's place."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from store.errors import StoreMismatchError, StoreNotFoundError
from store.files import replace_file
from store.journal import Journal
from store.reader import Reader, open_store
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

    def open(
        self, cache: str | os.PathLike[str] | None = None, cache_bytes: int | None = None
    ) -> Reader:
        """Open the store that it stands for.

        Args:
            cache: Folder of local copies, as in `open_store`.
            cache_bytes: What all copies in it may take.

        Raises:
            StoreError: As `open_store` does.
            StoreMismatchError: The store has another content now.
        """
        reader = open_store(
            self.path, expected=self.fingerprint, cache=cache, cache_bytes=cache_bytes
        )
        if reader.journal.digest != self.digest:
            raise StoreMismatchError(
                "another content than the manifest's, under the same fingerprint",
                where=self.path,
                expected=f"digest {self.digest}",
                found=reader.journal.digest,
                hint="put the store back that the manifest was written for, or let "
                "`dvc repro -f -s extract` write the manifest of this one",
            )
        return reader

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
        hint = "rerun `dvc repro extract`, or `cirkd store adopt` for a store made elsewhere"
        if not Path(path).is_file():  # reading a FIFO would wait for ever
            raise StoreNotFoundError(
                "no manifest", where=os.fspath(path), expected="a file", found="none", hint=hint
            )
        try:
            manifest = cls(**json.loads(Path(path).read_bytes()))
            for field in fields(cls):
                if type(value := getattr(manifest, field.name)) is not field.type:
                    raise TypeError(f"{field.name}: {value!r:.80}")
            return manifest
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreMismatchError(
                "not a manifest",
                where=os.fspath(path),
                expected="the JSON of a manifest",
                found=error,
                hint=hint,
            ) from error
