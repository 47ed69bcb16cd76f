"""The images that somebody names: files, folders, patterns and lists."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.datasets.listing import list_tree, readable_suffixes

WILDCARD = re.compile(r"[*?\[]")


def list_sources(sources: Iterable[str], made: Path | None = None) -> dict[str, Path]:
    """List images by the names that what is made of them gets: their own, without the suffix.

    Args:
        sources: each a file; a folder, with its sub-folders; a pattern such as `in/**/*.jpg`; or a
            .txt list of files, one a line, relative to the list. What lies below a folder keeps
            its sub-folder in its name. Numbers in names count as numbers: frame_2 before frame_10.
        made: folder for what is made of them; what lies there is no image of a folder around it.

    Raises:
        FileNotFoundError: a source names no image.
        ValueError: two images would get one name.
    """
    named: dict[str, Path] = {}
    for source in sources:
        listed = (item for item in _list(source) if made is None or not _is_made(*item, made))
        found = sorted(listed, key=lambda item: _natural(item[1].as_posix()))
        if not found:
            raise FileNotFoundError(f"{source}: no image; expected a file, a folder, a pattern")
        for base, path in found:
            name = _name(base, path)
            if name in named and named[name] != path:
                raise ValueError(
                    f"{named[name]} and {path} would both be written as {name}; predict them into "
                    "two folders"
                )
            named[name] = path
    return named


def _list(source: str) -> Iterator[tuple[Path, Path]]:
    """List pairs of a base folder and a file."""
    path = Path(source)
    if path.is_dir():
        readable = readable_suffixes()
        yield from ((path, file) for file in list_tree(path) if file.suffix.lower() in readable)
    elif path.suffix == ".txt" and path.is_file():
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        yield from ((path.parent, path.parent / line.strip()) for line in lines if line.strip())
    elif WILDCARD.search(source) and not path.exists():
        base = Path(*_before_wildcard(path))
        matches = map(Path, glob.glob(source, recursive=True))
        yield from ((base, match) for match in matches if match.is_file())
    elif path.exists():
        yield path.parent, path


def _is_made(base: Path, path: Path, made: Path) -> bool:
    """Tell whether a file lies in a folder of results, which a search from `base` came upon."""
    folder = made.resolve()
    return path.resolve().is_relative_to(folder) and not base.resolve().is_relative_to(folder)


def _before_wildcard(path: Path) -> Iterator[str]:
    for part in path.parts:
        if WILDCARD.search(part):
            return
        yield part


def _name(base: Path, path: Path) -> str:
    """Return a file's path below its base, or its own name, without the suffix."""
    below = path.is_relative_to(base) and ".." not in path.relative_to(base).parts
    return (path.relative_to(base) if below else Path(path.name)).with_suffix("").as_posix()


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts digits in a name as the number they are."""
    return [
        (int(part or 0), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)
    ]
