"""How many students it takes until a profile's store has paid for its extraction."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipeline.benchmarks.trainer import pick_cirkd
from pipeline.benchmarks.variants import Setting, step_medians
from pipeline.distillation.objective import Objective
from pipeline.extraction.job import Extraction
from pipeline.report.amortisation import Amortisation
from pipeline.report.results import Results
from store.reader import Reader


def benchmark(
    results: Results,
    reader: Reader,
    teach: Callable[[], Extraction],
    device: torch.device,
    *,
    num_workers: int = 1,
    num_rounds: int = 5,
) -> Amortisation:
    """Join a profile's measured seconds with the steps of its first CIRKD student, timed here.

    Args:
        results: of the finished profile; its students' seconds are those of their stage.
        reader: of its store.
        teach: loads its teacher.
        device: where steps are timed: the one the students were trained on.
        num_workers: loader processes, as in training.
        num_rounds: timed rounds, every variant in turn.

    Raises:
        ValueError: no CIRKD student, or nobody timed the extraction.
    """
    name = pick_cirkd(results.params)
    (run,) = (run for run in results.runs if run.name == name)
    if results.store.extract_seconds is None:
        raise ValueError(
            f"the extraction of store {results.store.fingerprint} was never timed; "
            "delete its folder in artifacts/stores and run `dvc repro -f -s extract`"
        )
    setting = Setting(
        reader=reader,
        config=run.settings,
        teach=teach,
        fill=Objective.fill,
        device=device,
        num_workers=num_workers,
    )
    seconds, _ = step_medians(setting, num_rounds)
    return Amortisation.from_costs(
        results.store.fingerprint,
        name,
        teacher_s=results.teacher.seconds,
        extraction_s=results.store.extract_seconds,
        offline_s=run.seconds,
        step_s=seconds,
    )
