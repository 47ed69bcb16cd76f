"""What storing a few views costs in accuracy: students of v stored views against fresh crops."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.benchmarks.online import fresh_batches, query_teacher
from pipeline.benchmarks.trainer import build_objective, take_steps
from pipeline.config.augment import WHOLE
from pipeline.config.params import StudentConfig
from pipeline.distillation.objective import Objective
from pipeline.evaluation.evaluate import evaluate, summarise
from pipeline.evaluation.inference import Inference
from pipeline.extraction.job import Extraction
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.models.network import Network
from pipeline.training.steps import check_finite
from store.files import write_json
from store.reader import Reader


@dataclass(frozen=True)
class Case:
    """One way to train: a method, and how many stored views it sees; None = fresh crops."""

    method: str
    num_views: int | None

    @property
    def name(self) -> str:
        """Return the case's name in tables and file names."""
        return f"{self.method}-{'online' if self.num_views is None else f'views-{self.num_views}'}"


def cases(views: tuple[int, ...]) -> tuple[Case, ...]:
    """List the cases: labels alone on fresh crops and on the fewest views; CIRKD on everything."""
    stored = [Case("cirkd", num_views) for num_views in views]
    alone = [Case("ce", None), Case("ce", min(views))]
    return (*alone, Case("cirkd", None), *stored)


def pick_cases(views: tuple[int, ...], only: Collection[str]) -> list[Case]:
    """Return the cases of some names; all if no name is given.

    Raises:
        ValueError: there is no such case.
    """
    known = {case.name: case for case in cases(views)}
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise ValueError(f"--case: expected some of {', '.join(known)}; found {unknown[0]}")
    return [case for name, case in known.items() if not only or name in only]


def with_views(job: Extraction, num_views: int) -> Extraction:
    """Return the same extraction with another number of views."""
    return job.replan(job.settings.model_copy(update={"num_views": num_views}))


def benchmark(
    job: Extraction,
    reader: Reader,
    config: StudentConfig,
    folder: Path,
    *,
    views: tuple[int, ...],
    only: Collection[str] = (),
    num_seeds: int = 3,
    num_workers: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:  # JSON
    """Train and evaluate every case with every seed, or take what `folder` holds of them already.

    Every case is trained alike, and every CIRKD run starts with queues filled from the first view
    of each image, as an online run must begin with some, too; a v-view case sees a store's first v
    views. Online, image order is that of the one-view store, the view's number is the epoch, and
    the teacher runs in the loop.

    Args:
        job: of the store; its teacher gives online what the store gives offline.
        reader: of a store with the most views.
        config: a student of method cirkd, with the steps to take.
        folder: of finished runs, one file each.
        views: numbers of views.
        only: names of the cases to take; without any, all.
        num_seeds: seeds 0, 1, ...
        num_workers: loader processes; never changes a result.
        progress: told of each run.

    Returns:
        For each case: mean and sample deviation of the val mIoU, mean seconds of a training
        (evaluation left out), and both for every seed.
    """
    figures = {}
    for case in pick_cases(views, only):
        runs = []
        for seed in range(num_seeds):
            # Whole batches of whole views in every case: fresh crops are cut no further.
            whole = config.training.model_copy(update={"accumulate": 1, "augment": WHOLE})
            update = {"method": case.method, "seed": seed, "training": whole}
            if case.method == "ce":
                update["terms"] = None  # other weights of CIRKD's terms
            seeded = config.model_copy(update=update)
            progress(f"{case.name}, seed {seed}")
            runs.append(_finished(job, reader, seeded, case, folder, num_workers))
        figures[case.name] = _summary(runs)
    return figures


def _finished(
    job: Extraction,
    reader: Reader,
    config: StudentConfig,
    case: Case,
    folder: Path,
    num_workers: int,
) -> dict[str, Any]:  # JSON
    """Return a run's figures, from its file if that is of the same run."""
    # A store of v views holds what the first v views of a larger one hold.
    shared = job.spec.identity
    views = {**shared["views"], "num_views": case.num_views or 1}
    asked = {
        "run": config.model_dump(mode="json"),
        "case": case.name,
        "store": {**shared, "views": views},
        "device": job.device.type,
    }
    path = folder / f"{case.name}-seed-{config.seed}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        if found.pop("asked") == json.loads(json.dumps(asked)):
            return found
    figures = train_and_evaluate(job, reader, config, case, num_workers)
    write_json({"asked": asked, **figures}, path)
    return figures


def train_and_evaluate(
    job: Extraction, reader: Reader, config: StudentConfig, case: Case, num_workers: int
) -> dict[str, Any]:  # JSON
    """Train one student, and measure it on val at full size."""
    objective = build_objective(config, reader.spec, job.device)
    start = time.perf_counter()
    objective.fill(reader.first_views(1))
    batches = _batches(job, reader, config, case, objective, num_workers)
    results = list(take_steps(objective, config.training, batches))
    check_finite(results, case.name, lambda record: f" (records {record.tolist()})")
    seconds = time.perf_counter() - start
    student, precision = objective.modules["student"], config.training.precision
    assert isinstance(student, Network)
    confusion = evaluate(student, job.index, "val", job.device, Inference(precision))
    return {"miou": summarise(confusion)["miou"], "seconds": round(seconds, 2)}


def _batches(
    job: Extraction,
    reader: Reader,
    config: StudentConfig,
    case: Case,
    objective: Objective,
    num_workers: int,
) -> Iterator[Batch]:
    steps = range(config.training.steps)
    if case.num_views is None:
        fresh = fresh_batches(
            job,
            seed=config.seed,
            batch_size=config.training.batch_size,
            steps=steps,
            num_workers=num_workers,
        )
        return map(partial(query_teacher, job), fresh) if objective.needs else fresh
    loading = LoaderConfig.of_student(config, objective.needs, num_workers)
    return stream(reader.first_views(case.num_views), loading, steps, job.device)


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:  # JSON
    mious = [run["miou"] for run in runs]
    return {
        "miou": statistics.mean(mious),
        "miou_deviation": statistics.stdev(mious) if len(mious) > 1 else None,
        "seconds": statistics.mean(run["seconds"] for run in runs),
        "runs": runs,
    }
