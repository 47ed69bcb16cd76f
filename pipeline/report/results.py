"""Everything that was measured for one profile, gathered from its JSON files into plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.config.params import Params, StudentConfig
from pipeline.datasets.index import Index
from pipeline.models.teacher import TeacherCard
from pipeline.report.amortisation import Amortisation
from store.files import reading
from store.manifest import Manifest

REMAKE = "run `dvc repro`, which makes what is missing or out of date"


class ReportError(ValueError):
    """Results that are missing, or that do not belong together; the message lists every finding."""

    def __init__(self, folder: Path, findings: list[str]) -> None:
        listing = "\n".join(f"  {finding}" for finding in findings)
        super().__init__(f"{folder}: {len(findings)} finding(s):\n{listing}\n{REMAKE}")


@dataclass(frozen=True)
class Scores:
    """The figures of one network on one split; IoU is None for a class that never occurs.

    Attributes:
        miou: mean IoU, 0..1; None if no class occurs.
        iou: one value per class, 0..1.
        pixel_accuracy: share of labelled pixels that are right, 0..1.
        mean_accuracy, mean_boundary_f: means over classes, 0..1; None where nobody measured them.
        confusion: pixels by label and by prediction; empty where nobody kept them.
    """

    miou: float | None
    iou: tuple[float | None, ...]
    pixel_accuracy: float | None
    mean_accuracy: float | None = None
    mean_boundary_f: float | None = None
    confusion: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scores:  # JSON
        """Read what `summarise` returned."""
        return cls(
            miou=values["miou"],
            iou=tuple(values["iou"]),
            pixel_accuracy=values["pixel_accuracy"],
            mean_accuracy=values.get("mean_accuracy"),
            mean_boundary_f=values.get("mean_boundary_f"),
            confusion=tuple(map(tuple, values.get("confusion", ()))),
        )


@dataclass(frozen=True)
class LoggedStep:
    """One line of a run's log: seconds and unweighted terms of a step."""

    step: int
    wait_s: float
    step_s: float
    terms: Mapping[str, float]


@dataclass(frozen=True)
class RunResult:
    """One trained student: what was asked for, what it cost, how good it is.

    `commit` is that of the code; None outside a git repository. `num_flops` is of one view of the
    store, forward; None of a run from before they were counted.
    """

    name: str
    settings: StudentConfig
    scores: Scores
    num_parameters: int
    seconds: float
    evaluation_seconds: float
    peak_memory_bytes: int
    device: str
    versions: Mapping[str, str]
    log: tuple[LoggedStep, ...]
    store: str
    commit: str | None
    num_flops: int | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of every term, cross-entropy's included."""
        return self.settings.all_weights

    @property
    def step_s(self) -> float:
        """Return the median seconds of a logged step, its wait included."""
        return median(line.step_s for line in self.log)

    @property
    def wait_s(self) -> float:
        """Return the median seconds that a logged step waited for its batch."""
        return median(line.wait_s for line in self.log)


@dataclass(frozen=True)
class StoredArray:
    """One array of the store, before and after compression."""

    name: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class StoreFacts:
    """What manifest and audit say of the store.

    `extract_seconds` is None where nobody timed it; `fidelity` (of `spot_check`) is empty where
    nobody measured it.
    """

    fingerprint: str
    digest: str
    schema_version: int
    records: int
    images: int
    views: int
    teacher_miou: float | None
    raw_bytes: int
    stored_bytes: int
    arrays: tuple[StoredArray, ...]
    extract_seconds: float | None
    fidelity: Mapping[str, float]


@dataclass(frozen=True)
class Results:
    """All a report needs beside the pixels; the runs in the order of params.students.

    `amortisation` is None where `cirkd benchmark amortise` was not run; `teacher_log` is empty
    where the teacher was not trained here, or its log not yet kept.
    """

    params: Params
    index: Index
    teacher: TeacherCard
    teacher_scores: Scores
    store: StoreFacts
    runs: tuple[RunResult, ...]
    amortisation: Amortisation | None = None
    teacher_log: tuple[LoggedStep, ...] = ()


def gather(profile: Path, params: Params) -> Results:
    """Read the results of a profile: of the students in `params`, whatever else its folder holds.

    Args:
        profile: the folder <artifacts>/profiles/<profile>.
        params: of that profile.

    Raises:
        ReportError: files are missing, or were made with other parameters or another store.
    """
    artifacts = profile.parent.parent
    index_path = artifacts / "datasets" / params.dataset.name / "index.json"
    card_path = artifacts / "teachers" / f"{params.teacher.name}.json"
    log_path = card_path.with_suffix(".log.jsonl")
    manifest_path = artifacts / "manifests" / f"{params.store.name}.json"
    audit_path = manifest_path.with_suffix(".audit.json")
    folders = {run: profile / "students" / run for run in params.students}
    needed = [index_path, card_path, manifest_path, audit_path]
    needed += [folder / name for folder in folders.values() for name in _RUN_FILES]
    if missing := [f"{path}: no such file" for path in needed if not path.is_file()]:
        raise ReportError(profile, missing)
    manifest, audit = Manifest.read(manifest_path), _read(audit_path, "digest")
    _refuse_foreign(profile, params, manifest, audit)
    card = TeacherCard.read(card_path)
    with reading(card_path, "what the teacher stage measured", REMAKE):
        teacher_scores = Scores.from_dict(card.val)
    with reading(audit_path, "what the audit stage found", REMAKE):
        store = _store(manifest, audit, manifest_path)
    return Results(
        params=params,
        index=Index.read(index_path),
        teacher=card,
        teacher_scores=teacher_scores,
        store=store,
        runs=tuple(read_run(run, folders[run], params.students[run]) for run in params.students),
        amortisation=_amortisation(profile / "amortise.json"),
        teacher_log=read_log(log_path) if log_path.is_file() else (),
    )


def metrics(results: Results) -> dict[str, Any]:  # JSON
    """Return the figures that DVC compares between revisions (metrics.json)."""
    store = results.store
    return {
        "teacher": {"miou": results.teacher_scores.miou},
        "students": {
            run.name: {
                "miou": run.scores.miou,
                "pixel_accuracy": run.scores.pixel_accuracy,
                "method": run.settings.label,
                "seed": run.settings.seed,
                "seconds": run.seconds,
            }
            for run in results.runs
        },
        "store": {
            "records": store.records,
            "bytes": store.stored_bytes,
            "fingerprint": store.fingerprint,
            "teacher_miou_train": store.teacher_miou,
        },
    }


_RUN_FILES = ("model.pt", "run.json", "log.jsonl", "evaluation.json")


def _refuse_foreign(
    profile: Path,
    params: Params,
    manifest: Manifest,
    audit: Mapping[str, Any],  # JSON
) -> None:
    """Refuse to mix results of two sets of parameters, or of two stores, on one page."""
    findings = []
    if profile.name != params.profile:
        findings.append(f"params are of profile {params.profile}; expected {profile.name}")
    if audit["digest"] != manifest.digest:
        findings.append(
            f"{params.store.name}.audit.json is of store content {audit['digest']!s:.16}; "
            f"expected {manifest.digest:.16}"
        )
    for name, student in params.students.items():
        run = _read(profile / "students" / name / "run.json", "store", "params")
        if run["store"] != manifest.fingerprint:
            findings.append(
                f"{name} learned from store {run['store']}; expected {manifest.fingerprint}"
            )
        asked = student.model_dump(mode="json")
        findings += [f"{name}: {line}" for line in _conflicts(asked, run["params"])]
    if findings:
        raise ReportError(profile, findings)


def _conflicts(asked: Any, found: Any, where: str = "") -> list[str]:  # JSON
    """List the fields that both know and that differ; one added later is no conflict."""
    if isinstance(asked, dict) and isinstance(found, dict):
        shared = [key for key in asked if key in found]
        lines = (_conflicts(asked[key], found[key], f"{where}{key}.") for key in shared)
        return [line for group in lines for line in group]
    differs = asked != found
    return [f"trained with {where[:-1]} {found}; expected {asked}"] if differs else []


def read_run(name: str, folder: Path, settings: StudentConfig) -> RunResult:
    """Read what training and evaluation of a run left in its folder."""
    costs = ("num_parameters", "seconds", "peak_memory_bytes")
    run = _read(folder / "run.json", "store", "device", "versions", *costs)
    evaluation = _read(folder / "evaluation.json", "seconds", "miou", "iou", "pixel_accuracy")
    return RunResult(
        name=name,
        settings=settings,
        scores=Scores.from_dict(evaluation),
        num_parameters=run["num_parameters"],
        seconds=run["seconds"],
        evaluation_seconds=evaluation["seconds"],
        peak_memory_bytes=run["peak_memory_bytes"],
        device=run["device"],
        versions=run["versions"],
        log=read_log(folder / "log.jsonl"),
        store=run["store"],
        commit=run.get("commit"),
        num_flops=run.get("num_flops"),
    )


def read_log(path: Path) -> tuple[LoggedStep, ...]:
    """Read the steps of a training's log, below its header."""
    with reading(path, "the log of a training", REMAKE):
        lines = path.read_text().splitlines()[1:]
        return tuple(_logged_step(json.loads(line)) for line in lines)


def _logged_step(line: Mapping[str, Any]) -> LoggedStep:  # JSON
    return LoggedStep(line["step"], line["wait_s"], line["step_s"], line["terms"])


def _store(manifest: Manifest, audit: Mapping[str, Any], path: Path) -> StoreFacts:  # JSON
    # Beside the manifest and the audit, not in them: seconds and last bits, which differ with every
    # machine, would make every rerun a new one.
    timing, fidelity = (path.with_suffix(f".{name}.json") for name in ("extract", "fidelity"))
    return StoreFacts(
        fingerprint=manifest.fingerprint,
        digest=manifest.digest,
        schema_version=manifest.schema_version,
        records=manifest.num_records,
        images=audit["images"],
        views=audit["views"],
        teacher_miou=audit["teacher_miou"],
        raw_bytes=audit["raw_bytes"],
        stored_bytes=audit["stored_bytes"],
        arrays=tuple(
            StoredArray(name, sizes["raw_bytes"], sizes["stored_bytes"])
            for name, sizes in audit["arrays"].items()
        ),
        extract_seconds=_read(timing)["seconds"] if timing.is_file() else None,
        fidelity=_read(fidelity) if fidelity.is_file() else {},
    )


def _amortisation(path: Path) -> Amortisation | None:
    return Amortisation.from_dict(_read(path)) if path.is_file() else None


def _read(path: Path, *keys: str) -> Any:  # JSON
    with reading(path, "JSON of a stage", REMAKE):
        values = json.loads(path.read_bytes())
        if missing := set(keys) - set(values):
            raise ValueError(f"no {', '.join(sorted(missing))}")
        return values
