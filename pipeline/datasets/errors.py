"""What is wrong with a dataset, all of it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

REMEDY = "Nothing was written. Repair or remove these files, then run the same command again."
MOST_LISTED = 20
"""Findings of one kind that a message spells out; where every file is wrong, more say no more."""


@dataclass(frozen=True, order=True)
class Finding:
    """One thing wrong with one file or folder, and what to do where that is certain."""

    file: str
    what: str
    expected: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.file}: {self.what}: expected {self.expected}; found {self.found}"
        return f"{text}. {self.hint}" if self.hint else text


class PixelError(ValueError):
    """A whole file whose pixels are not what an image or labels may have."""

    def __init__(self, expected: str, found: str, hint: str) -> None:
        self.expected, self.found, self.hint = expected, found, hint
        super().__init__(f"expected {expected}; found {found}. {hint}")

    def finding(self, file: str) -> Finding:
        """Return it as what is wrong with a file."""
        return Finding(file, "pixels of another kind", self.expected, self.found, self.hint)


class DatasetError(ValueError):
    """A dataset that cannot be used; the message lists what is wrong, `findings` holds it all."""

    def __init__(self, where: str, findings: Iterable[Finding], remedy: str = REMEDY) -> None:
        self.findings = tuple(sorted(findings))
        lines = "".join(f"\n  {line}" for line in _lines(self.findings))
        super().__init__(f"dataset at {where}: {len(self.findings)} finding(s){lines}\n{remedy}")


def _lines(findings: Iterable[Finding]) -> list[str]:
    """Spell out the first MOST_LISTED findings of each kind, and count the others."""
    counts: Counter[str] = Counter()
    lines = []
    for finding in findings:
        counts[finding.what] += 1
        if counts[finding.what] <= MOST_LISTED:
            lines.append(str(finding))
    return lines + [
        f"{what}: {count - MOST_LISTED} more files"
        for what, count in counts.items()
        if count > MOST_LISTED
    ]
