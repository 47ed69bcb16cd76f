"""What is wrong with a dataset, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

REMEDY = "Nothing was written. Repair or remove these files, then run the same command again."


@dataclass(frozen=True, order=True)
class Finding:
    """One thing wrong with one file or folder."""

    file: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}: expected {self.expected}; found {self.found}"


class DatasetError(ValueError):
    """A dataset that cannot be used; the message lists every finding, `findings` holds them."""

    def __init__(self, where: str, findings: Iterable[Finding], remedy: str = REMEDY) -> None:
        self.findings = tuple(sorted(findings))
        lines = "".join(f"\n  {finding}" for finding in self.findings)
        super().__init__(f"dataset at {where}: {len(self.findings)} finding(s){lines}\n{remedy}")
