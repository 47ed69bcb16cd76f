"""A student's training: its objective, and its batches from the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config.params import StudentConfig
from pipeline.distillation.objective import Objective
from pipeline.loading.batch import Batch
from pipeline.loading.memory_budget import fit_prefetch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.models.network import Network, compile_network
from pipeline.runtime.rng import seed_torch
from pipeline.training.run import Resources, TrainingRun
from store.reader import Reader


def student_run(
    name: str,
    student: Network,
    settings: StudentConfig,
    reader: Reader,
    header: Mapping[str, Any],
    resources: Resources,
) -> TrainingRun:
    """Describe the training of a student from a store.

    Args:
        name: of the run.
        student: fresh, on the device that it is trained on.
        settings: of the run.
        reader: of the store, which holds what the run needs.
        header: first line of the log, JSON values; the memory of batches is added.
        resources: what may be used.

    Raises:
        ValueError: batches do not fit into `resources.ahead_bytes`, or among the ranks.
    """
    training, ranks = settings.training, resources.ranks
    device = next(student.parameters()).device
    objective = Objective(student, reader.spec, settings, device, ranks)
    compile_network(student, training.compile)
    student.train()
    prefetch_factor, in_flight = fit_prefetch(
        reader.spec,
        objective.needs,
        training.micro_batch_size(ranks.size),
        resources.num_workers,
        device.type == "cuda",
        resources.ahead_bytes,
    )
    loading = LoaderConfig.of_student(
        settings, objective.needs, resources.num_workers, prefetch_factor
    )

    def open_batches(steps: range) -> Iterator[Batch]:
        objective.fill(reader, resumed=steps.start > 0)
        return stream(reader, loading, steps, device, ranks)

    return TrainingRun(
        title=f"student {name}",
        training=training,
        modules=objective.modules,
        parts=objective.parts,
        compute_terms=objective.replicated(),
        weights=objective.weights,
        open_batches=open_batches,
        begin=lambda: seed_torch(settings.seed, "student", "dropout", *ranks.path),
        work=resources.work,
        header={**header, "in_flight_bytes": in_flight},
        name_source=lambda record: f" (records {reader.read(record.tolist(), ['key'])['key']})",
        ranks=ranks,
        tensorboard=resources.tensorboard,
    )
