"""What stages keep in artifacts/ beside their results, until when, and whose a store is."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config.base import BaseConfig
from pipeline.config.params import Params
from store.files import replace_file

WORK = Path("artifacts/work")
KEPT = "params-*.yaml"
"""In artifacts/: parameters of the user's own that a profile took the place of."""
FINISHED = "finished"
"""Holds the MD5 of what a finished training made, by which DVC's lock file names it."""


def work_folder(kind: str, identity: object) -> Path:
    """Return where an unfinished stage keeps its checkpoint, by all that shapes its result."""
    remove_recorded()
    text = json.dumps(identity, sort_keys=True)
    return WORK / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def describe_settings(settings: BaseConfig) -> dict[str, Any]:  # JSON
    """Describe a teacher's or a student's settings, but for how often its training is saved."""
    return settings.model_dump(mode="json", exclude={"training": {"checkpoint_every"}})


def same_views(params: Params, identity: Any) -> bool:  # JSON
    """Tell whether a store's views and encodings are those of some params."""
    return all(identity[name] == asked for name, asked in params.store.identity.items())


def read_header(work: Path) -> dict[str, Any]:
    """Read the first line of a training's log; empty if it has none yet."""
    try:
        with (work / "log.jsonl").open() as log:
            header = json.loads(log.readline())
    except (OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def read_steps(work: Path) -> Iterator[dict[str, Any]]:
    """Read the logged steps of a training; what is being written, or was cut off, is left out."""
    with suppress(OSError), (work / "log.jsonl").open() as log:
        for line in islice(log, 1, None):
            with suppress(ValueError):
                yield json.loads(line)


def finish_work(work: Path, result: Path) -> None:
    """Remove the folder of a finished training; under DVC not before DVC has recorded its result.

    DVC may end between the two, and deletes the result before it runs the stage again: that then
    takes no step, but goes on from the checkpoint after the last.
    """
    if "DVC_STAGE" in os.environ:
        with result.open("rb") as file:
            replace_file(work / FINISHED, hashlib.file_digest(file, "md5").hexdigest().encode())
    else:
        shutil.rmtree(work)


def remove_recorded() -> None:
    """Remove the folders of finished trainings that DVC has recorded by now."""
    for finished in WORK.glob(f"*/{FINISHED}"):
        with suppress(FileNotFoundError):
            if finished.read_text() in Path("dvc.lock").read_text():
                shutil.rmtree(finished.parent, ignore_errors=True)
