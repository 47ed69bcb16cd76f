"""Fingerprints: a cheap one that notices changed files, and one of every byte of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.datasets.errors import DatasetError, Finding
from pipeline.datasets.index import ClassTable, Sample
from pipeline.datasets.listing import find_folders, list_tree


def fingerprint_files(
    root: Path, folders: Sequence[str], files: Sequence[str] = (), archives: str = ""
) -> dict[str, Any]:  # JSON
    """Hash name, size and times of every file; what changes a file and none of them goes unseen.

    `prepare`, which runs when this changes, reads every byte: see `fingerprint_samples`.

    Args:
        root: the dataset's folder; it does not enter the hash, so a moved dataset is the same.
        folders: folders of files, relative to root (`*` stands for any name); those that do not
            exist count as absent.
        files: single files, relative to root.
        archives: where the dataset comes from and how it unpacks: what no file at all is answered
            with.

    Raises:
        DatasetError: root is not a folder, or, where there are archives, holds none of the files.
    """
    found = [folder for name in folders for folder in find_folders(root, name)]
    paths = [path for folder in found for path in list_tree(root / folder)]
    paths += [root / name for name in files if (root / name).exists()]
    if not root.is_dir() or (archives and not paths):
        what = "a folder without files of this kind" if root.is_dir() else "nothing"
        finding = Finding(str(root), "missing dataset", "the dataset's folder", what)
        hint = (
            "Correct `dataset.root` in params.yaml, or start anew from a profile: "
            "`cirkd profile use NAME --root PATH`."
        )
        raise DatasetError(str(root), [finding], f"{hint}\n{archives}".strip())
    digest = hashlib.sha256()
    num_bytes = 0
    for path in paths:
        status = path.stat() if path.is_file() else path.lstat()
        # The time of change is set by the system alone, so that it tells what `touch -r` hides.
        facts = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(os.fsencode(os.path.relpath(path, root)) + f"\0{facts}\n".encode())
        num_bytes += status.st_size
    return {
        "fingerprint": digest.hexdigest(),
        "covers": "names, sizes and times of files; not their bytes, which prepare reads",
        "num_files": len(paths),
        "num_bytes": num_bytes,
    }


def fingerprint_samples(classes: ClassTable, splits: Mapping[str, Sequence[Sample]]) -> str:
    """Hash every byte of a checked dataset's files, by the keys of its samples, and its classes."""
    files = {
        sample.key: (sample.image_sha256, sample.labels_sha256)
        for samples in splits.values()
        for sample in samples
    }
    return _hash({"classes": classes.to_dict(), "files": files})


def fingerprint_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:  # JSON
    """Hash what fully determines a generated dataset."""
    return {"fingerprint": _hash(numbers), **numbers}


def _hash(values: Mapping[str, Any]) -> str:  # JSON
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
