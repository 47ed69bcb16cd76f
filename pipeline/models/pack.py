"""Packs: a student as others share it, a folder or zip of safetensors, JSON and a model card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from safetensors.torch import load, save

from store.files import reading, replace_file, replacing

CONFIG, WEIGHTS, CARD, GRAPH = "config.json", "model.safetensors", "README.md", "model.onnx"
FILES = (CONFIG, WEIGHTS, CARD, GRAPH)
WHAT, HINT = "the pack of a student", "make it again with `cirkd pack`"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every file in a zip, so that the same student gives the same bytes."""


def is_pack(path: Path) -> bool:
    """Return whether a path is that of a pack: a folder, or a name that ends in .zip."""
    return path.is_dir() or path.suffix == ".zip"


def main_file(path: Path) -> Path:
    """Return the file that errors are told of: a folder's configuration, else the path itself."""
    return path / CONFIG if path.is_dir() else path


def write_pack(saved: Mapping[str, Any], extra: Mapping[str, bytes], path: Path) -> None:
    """Write a student as a pack; the same student gives the same bytes.

    Args:
        saved: what a student's file holds.
        extra: the other files, by name.
        path: the zip, or a folder, whose files appear one by one, the configuration last.

    Raises:
        ValueError: the folder holds something that is no pack.
    """
    state, config = saved["state_dict"], {k: v for k, v in saved.items() if k != "state_dict"}
    weights = save({name: state[name].contiguous() for name in sorted(state)})
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    files = {WEIGHTS: weights, **extra, CONFIG: text.encode()}
    assert set(files) <= set(FILES), "a pack has these files and no others"
    if path.suffix != ".zip":
        there = sorted(os.listdir(path)) if path.is_dir() else []
        if there and WEIGHTS not in there:
            raise ValueError(
                f"{path}: expected no folder, an empty one or a pack; found {there[0]}"
            )
        for name in FILES:
            if name not in files:  # of the pack before
                (path / name).unlink(missing_ok=True)
        for name, content in files.items():
            replace_file(path / name, content)
        return
    with replacing(path) as partial, ZipFile(partial, "w", ZIP_STORED) as archive:
        for name in sorted(files):
            member = ZipInfo(name, EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16  # on every system alike
            archive.writestr(member, files[name])


def read_pack(path: Path) -> dict[str, Any]:
    """Read what a student's file holds out of its pack; nothing is unpacked to the disk.

    Raises:
        FileNotFoundError: the pack, or a file of it, is missing.
        ValueError: it is damaged, or holds other files, or what is no safetensors.
    """
    config, weights = _read_files(path)
    with reading(main_file(path), WHAT, HINT):
        fields = json.loads(config)
        if not isinstance(fields, dict):
            raise ValueError(f"{CONFIG} with no table")
        return {**fields, "state_dict": load(weights)}


def _read_files(path: Path) -> tuple[bytes, bytes]:
    if path.suffix != ".zip":
        for name in (CONFIG, WEIGHTS):
            with reading(path / name, WHAT, HINT):
                (path / name).stat()
        return (path / CONFIG).read_bytes(), (path / WEIGHTS).read_bytes()
    with reading(path, WHAT, HINT), ZipFile(path) as archive:
        for member in archive.infolist():
            # Uncompressed, it cannot expand.
            if member.filename not in FILES or member.compress_type != ZIP_STORED:
                raise BadZipFile(f"{member.filename!r}, compressed or none of {', '.join(FILES)}")
        return archive.read(CONFIG), archive.read(WEIGHTS)
