"""The manifest: the small file that stands for a finished store in front of DVC."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from store.errors import StoreMismatchError, StoreNotFoundError
from store.files import replace_file


@dataclass(frozen=True)
class Manifest:
    """Where a finished store lies and what it must contain (no timestamps: it is reproducible)."""

    path: str
    fingerprint: str
    num_records: int
    digest: str
    schema_version: int

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
        remedy = "rerun `dvc repro -s extract`"
        try:
            return cls(**json.loads(Path(path).read_bytes()))
        except FileNotFoundError as error:
            raise StoreNotFoundError("no manifest", os.fspath(path), remedy=remedy) from error
        except (ValueError, TypeError) as error:
            raise StoreMismatchError(
                "not a manifest", os.fspath(path), found=error, remedy=remedy
            ) from error
