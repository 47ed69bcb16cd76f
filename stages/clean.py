"""What lies in artifacts/ that no profile and no params.yaml refers to: listed, and removed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from pipeline.config.params import Params, load_params, load_profile
from stages.command import StageCommand, json_option
from stages.progress import say
from stages.work import KEPT, read_header, same_views
from store.errors import StoreError, StoreLockedError
from store.layout import LocalFiles, read_spec
from store.lock import Lock, is_locked
from store.manifest import Manifest

ARTIFACTS = Path("artifacts")
DATASET_FILES = {"index.json", "root.txt", "pixels"}
"""What `prepare` leaves; anything else in a dataset's folder is the user's own."""


@dataclass(frozen=True)
class Leftover:
    """What nothing refers to: where it lies, what it takes, and whether a process is at it."""

    path: str
    num_bytes: int
    in_use: bool


@dataclass(frozen=True)
class References:
    """All that params.yaml and the profiles refer to.

    Attributes:
        params: of each of them.
    """

    params: Sequence[Params]

    @classmethod
    def read(cls) -> References:
        """Read every profile and params.yaml; one that cannot be read is an error.

        Raises:
            FileNotFoundError: there is none: everything would be unreferred.
        """
        found = [load_profile(path) for path in sorted(Path("profiles").glob("*.yaml"))]
        own = [Path("params.yaml"), *sorted(ARTIFACTS.glob(KEPT))]
        found += [load_params(path) for path in own if path.exists()]
        if not found:
            raise FileNotFoundError(
                f"{Path.cwd()}: no params.yaml and no profile; run in the project's root"
            )
        return cls(found)

    @cached_property
    def manifests(self) -> list[Manifest]:
        """Return those of all stores that are named and finished."""
        paths = {ARTIFACTS / "manifests" / f"{one.store.name}.json" for one in self.params}
        return [Manifest.read(path) for path in sorted(paths) if path.exists()]

    def holds_run(self, profile: str, run: str) -> bool:
        """Return whether a student is in some form of its profile."""
        return any(one.profile == profile and run in one.students for one in self.params)

    def holds_store(self, folder: Path) -> bool:
        """Return whether a manifest names a store, or settings lead to it, finished or not."""
        name = _name(folder)
        if any(name in (one.fingerprint, Path(one.path).name) for one in self.manifests):
            return True
        try:
            identity = read_spec(LocalFiles(folder.with_name(name))).identity
        except StoreError:
            return False
        return any(
            _leads_to(one, identity) or (same_views(one, identity) and self._has_two_teachers(one))
            for one in self.params
        )

    def _has_two_teachers(self, params: Params) -> bool:
        """Whether its teacher's name stands for several, of which one file can be there."""
        named = [one.teacher for one in self.params if one.teacher.name == params.teacher.name]
        return any(teacher != named[0] for teacher in named)

    def holds_work(self, path: Path) -> bool:
        """Return whether an unfinished training, or a log of one, has settings still in force."""
        if path.suffix == ".log":
            runs = {f"train-{run}" for one in self.params for run in one.students}
            return path.stem in runs
        settings = (x for one in self.params for x in (one.teacher, *one.students.values()))
        trained = read_header(path).get("params")
        return any(trained == one.model_dump(mode="json") for one in settings)

    @property
    def folders(self) -> dict[str, Callable[[Path], bool]]:
        """Return, by folder of artifacts/, whether something refers to what lies in it."""
        datasets = {one.dataset.name for one in self.params}
        teachers = {one.teacher.name for one in self.params}
        stores = {one.store.name for one in self.params}
        profiles = {one.profile for one in self.params}
        digests = {one.digest[:16] for one in self.manifests}
        return {
            "datasets": lambda path: path.name in datasets,
            "teachers": lambda path: _name(path) in teachers,
            "manifests": lambda path: _name(path) in stores,
            "stores": self.holds_store,
            "banks": lambda path: path.name in digests,
            "profiles": lambda path: path.name in profiles,
            "work": self.holds_work,
        }

    def find_unreferred(self) -> Iterator[Path]:
        """Yield what nothing refers to; what lies behind a link is not looked at."""
        for name, holds in self.folders.items():
            for path in _list(ARTIFACTS / name):
                if not holds(path):
                    yield from _own_files(path) if name == "datasets" else (path,)
                elif name == "profiles":
                    runs = _list(path / "students")
                    yield from (run for run in runs if not self.holds_run(path.name, run.name))


def _name(path: Path) -> str:
    """Return what stands before the first dot, which no name in params.yaml has."""
    return path.name.partition(".")[0]


def _list(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _own_files(dataset: Path) -> list[Path]:
    """Return the folder of a dataset, or our own files in it if the user's are there, too."""
    inside = _list(dataset)
    own = [path for path in inside if path.name in DATASET_FILES]
    return [dataset] if own == inside else own


def _leads_to(params: Params, identity: Any) -> bool:  # JSON
    """Whether a store's views, encodings and teacher are those of some params."""
    card = ARTIFACTS / "teachers" / f"{params.teacher.name}.json"
    if not same_views(params, identity) or not card.exists():
        return False
    return bool(json.loads(card.read_bytes())["sha256"] == identity["teacher"]["sha256"])


def measure(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links count as themselves."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)


def find_leftovers() -> list[Leftover]:
    """List what nothing refers to; a store that a running training reads is in use."""
    trainings = [path for path in _list(ARTIFACTS / "work") if is_locked(path)]
    read = {read_header(path).get("store") for path in trainings}
    found = []
    for path in References.read().find_unreferred():
        holder = path.with_suffix("")  # of what lies beside a store, too
        in_use = is_locked(holder) or holder.name in read
        found.append(Leftover(str(path), measure(path), in_use))
    return found


def remove(leftover: Leftover) -> bool:
    """Remove what nobody holds, of a link the link alone; return whether it is gone."""
    path = Path(leftover.path)
    if leftover.in_use:
        return False
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return True
    try:
        with Lock(path):
            shutil.rmtree(path)
    except StoreLockedError:
        return False
    return True


@click.command("clean", cls=StageCommand, example="cirkd clean --yes")
@click.option("--yes", is_flag=True, help="Remove what is listed, without asking.")
@json_option
def command(yes: bool, as_json: bool) -> None:
    """List what lies in artifacts/ and no profile nor params.yaml refers to, and remove it.

    Nothing is removed without --yes, or a yes on a terminal; never what a process holds, never
    what lies outside artifacts/ (of a link, the link alone), never files that are the user's own.
    """
    found = find_leftovers()
    if not as_json:
        for one in found:
            note = "  (in use: stays)" if one.in_use else ""
            click.echo(f"{one.num_bytes / 1e6:12.2f} MB  {one.path}{note}")
        total = sum(one.num_bytes for one in found)
        say(f"{total / 1e6:12.2f} MB  in {len(found)} places that nothing refers to")
        free = [one for one in found if not one.in_use]
        if free and not yes and sys.stdin.isatty():
            yes = click.confirm("remove them?")
    gone = {one.path for one in found if yes and remove(one)}
    if as_json:
        listed = [{**asdict(one), "removed": one.path in gone} for one in found]
        click.echo(json.dumps(listed, indent=2))
    elif yes:
        say(f"{len(gone)} removed")


if __name__ == "__main__":
    command()
