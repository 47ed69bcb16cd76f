"""A cheap fingerprint of folders of files: names, sizes, and a look into some of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.datasets.errors import DatasetError, Finding
from pipeline.datasets.listing import list_files

SAMPLED_FILES = 64
SAMPLED_BYTES = 64 * 1024


def fingerprint_files(
    root: Path,
    folders: Sequence[str],
    files: Sequence[str] = (),
    *,
    sampled_files: int = SAMPLED_FILES,
) -> dict[str, Any]:  # JSON
    """Hash path and size of every file, and the beginning of an even sample of them.

    Args:
        root: the dataset's folder; it does not enter the hash, so a moved dataset is the same.
        folders: folders of files, relative to root; those that do not exist count as absent.
        files: single files, relative to root, read like a folder of one.
        sampled_files: how many files of each folder are looked into, spread evenly over names.

    Raises:
        DatasetError: root is not a folder.
    """
    if not root.is_dir():
        finding = Finding(str(root), "missing dataset", "a folder", "nothing")
        raise DatasetError(str(root), [finding], "Name it: `cirkd profile use NAME --root PATH`.")
    groups = [list_files(root / folder) for folder in folders if (root / folder).is_dir()]
    groups += [[root / file] for file in files if (root / file).exists()]
    digest = hashlib.sha256()
    num_files = num_bytes = 0
    for group in groups:
        for path in group:
            size = path.stat().st_size if path.is_file() else -1
            digest.update(f"{path.relative_to(root).as_posix()}\0{size}\n".encode())
            num_files += 1
            num_bytes += max(0, size)
        for path in _spread(group, sampled_files):
            digest.update(_beginning(path))
    return {"fingerprint": digest.hexdigest(), "num_files": num_files, "num_bytes": num_bytes}


def fingerprint_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:  # JSON
    """Hash what fully determines a generated dataset."""
    canonical = json.dumps(numbers, sort_keys=True)
    return {"fingerprint": hashlib.sha256(canonical.encode()).hexdigest(), **numbers}


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Pick `count` of the paths, first and last among them, or all where there are fewer."""
    if len(paths) <= count:
        return list(paths)
    last = len(paths) - 1
    return [paths[position * last // max(1, count - 1)] for position in range(count)]


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SAMPLED_BYTES)
    except (
        OSError
    ) as error:  # prepare opens every file and names this one; here it only has to count
        return type(error).__name__.encode()
