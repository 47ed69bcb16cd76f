"""The promise of the project: a stored teacher teaches what a live teacher teaches."""

from collections.abc import Callable, Iterator

import pytest
import torch

from pipeline.extraction import Extraction
from pipeline.live import live_batch
from pipeline.objective import Objective
from pipeline.params import Encodings, Params, Store, Student
from pipeline.randomness import seed_torch
from pipeline.stream import Batch, stream
from pipeline.students import build_student
from store.reader import Reader

CPU = torch.device("cpu")
STEPS = range(4)
EXACT = Encodings(logits="float32", features="float32")


@pytest.fixture
def exact_settings(tiny_params: Params) -> Store:
    # One record a forward pass: outputs differ in the last bits between batch compositions.
    return tiny_params.store.model_copy(update={"encodings": EXACT, "forward_batch": 1})


def record_numbers(reader: Reader, run: Student) -> list[list[int]]:
    return [batch.record.tolist() for batch in open_stream(reader, run)]


def open_stream(reader: Reader, run: Student) -> Iterator[Batch]:
    return stream(
        reader,
        seed=run.seed,
        batch_size=run.training.batch_size,
        steps=STEPS,
        device=CPU,
    )


def losses_and_gradients(
    batches: Iterator[Batch], reader: Reader, run: Student
) -> tuple[list[dict[str, float]], torch.Tensor]:
    """Every term of every step, and the gradient summed over the steps; no weight moves."""
    seed_torch(run.seed, "test")
    student = build_student(run.architecture, reader.spec.num_classes).train()
    objective = Objective(student, reader.spec, run, CPU)
    objective.fill(reader)
    seen = []
    for batch in batches:
        terms = objective.compute_terms(batch)
        weighted = [objective.weights[name] * value for name, value in terms.items()]
        torch.stack(weighted).sum().backward()
        seen.append({name: value.item() for name, value in terms.items()})
    gradients = [p.grad for p in objective.modules.parameters() if p.grad is not None]
    return seen, torch.cat([gradient.flatten() for gradient in gradients])


def live(job: Extraction, numbers: list[list[int]]) -> Iterator[Batch]:
    return (live_batch(job, records) for records in numbers)


def test_offline_equals_online(
    tiny_job: Callable[[Store], Extraction],
    tiny_params: Params,
    exact_settings: Store,
    build_store: Callable[[Store], Reader],
) -> None:
    """All five terms and the gradient, through queues, order and projector, to the last bits.

    The last bits are left open: a matrix product may round otherwise at another memory alignment.
    """
    run = tiny_params.students["r18_cirkd"]
    reader = build_store(exact_settings)
    online = live(tiny_job(exact_settings), record_numbers(reader, run))
    stored_losses, stored_gradient = losses_and_gradients(open_stream(reader, run), reader, run)
    live_losses, live_gradient = losses_and_gradients(online, reader, run)
    terms = {"task", "auxiliary", "kd", "minibatch_pixel", "memory_pixel", "memory_region"}
    assert set(stored_losses[0]) == terms
    for stored, lived in zip(stored_losses, live_losses, strict=True):
        assert stored == pytest.approx(lived, rel=1e-6)
    torch.testing.assert_close(stored_gradient, live_gradient, rtol=1e-5, atol=1e-7)
    assert stored_gradient.abs().sum() > 0


def test_default_encodings_stay_within_their_bound(
    tiny_job: Callable[[Store], Extraction],
    tiny_params: Params,
    exact_settings: Store,
    build_store: Callable[[Store], Reader],
) -> None:
    """Float16 logits and uint8 features move a term by under 1e-3 of itself plus 1e-4 nats."""
    run = tiny_params.students["r18_cirkd"]
    settings = exact_settings.model_copy(update={"encodings": tiny_params.store.encodings})
    reader = build_store(settings)
    online = live(tiny_job(settings), record_numbers(reader, run))
    stored_losses, stored_gradient = losses_and_gradients(open_stream(reader, run), reader, run)
    live_losses, live_gradient = losses_and_gradients(online, reader, run)
    for stored, lived in zip(stored_losses, live_losses, strict=True):
        for term, value in lived.items():
            assert stored[term] == pytest.approx(value, rel=1e-3, abs=1e-4), term
    assert stored_losses != live_losses
    assert torch.cosine_similarity(stored_gradient, live_gradient, dim=0) > 0.9999
