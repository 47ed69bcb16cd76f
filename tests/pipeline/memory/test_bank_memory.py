"""The bank as memory: the right class, never the batch's own records, uniform."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.params import DistillationConfig, Params, StudentConfig
from pipeline.distillation.objective import Objective
from pipeline.loading.batch import Batch
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.memory.bank_memory import BankMemory
from pipeline.memory.contrast_memory import Kind, contrast_per_class
from pipeline.models.network import build_network
from pipeline.runtime.rng import seed_sequence
from store.reader import Reader

CPU = torch.device("cpu")
KINDS: tuple[Kind, ...] = ("pixel", "region")


@pytest.fixture
def settings(tiny_params: Params) -> DistillationConfig:
    return tiny_params.distillation.model_copy(update={"memory": "bank"})


@pytest.fixture
def batch(tiny_store: Reader) -> Batch:
    return next(stream(tiny_store, LoaderConfig(0, 2), range(1), CPU))


def opened(store: Reader, settings: DistillationConfig, folder: Path, seed: int = 0) -> BankMemory:
    bank = BankMemory(store.spec, settings, seed, CPU)
    bank.fill(store, banks=folder)
    return bank


def by_class(store: Reader, kind: str) -> list[list[tuple[int, tuple[float, ...]]]]:
    """(record, embedding) of each class, record by record."""
    stored = store.read(slice(None), list(store.arrays))
    found: list[list[tuple[int, tuple[float, ...]]]] = [[] for _ in store.spec.class_names]
    for record in range(len(store)):
        if kind == "pixel":
            classes, embeddings = (
                stored["pixel_sample_class"][record],
                stored["pixel_sample"][record],
            )
        else:
            pixels = stored["region_pixels"][record]
            classes = np.where(pixels > 0, np.arange(len(pixels)), 255)
            embeddings = stored["region_center"][record]
        for c, embedding in zip(classes, embeddings, strict=True):
            if c != 255:
                found[c].append((record, tuple(embedding.tolist())))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_those_of_a_naive_reference(
    tiny_store: Reader, settings: DistillationConfig, batch: Batch, kind: Kind, tmp_path: Path
) -> None:
    bank, stored = opened(tiny_store, settings, tmp_path, seed=3), by_class(tiny_store, kind)
    rng = np.random.default_rng(seed_sequence(3, "bank"))
    num_classes = len(stored)
    per_class = contrast_per_class(getattr(settings, f"{kind}_contrast"), num_classes)
    own = set(batch.record.tolist())
    for _ in range(3):
        found = bank.sample(kind, batch)
        row = 0
        for c, entries in enumerate(stored):
            size = max(len(entries), per_class)
            for place in rng.choice(size, per_class, replace=False, shuffle=False):
                record, embedding = entries[place] if place < len(entries) else (None, None)
                assert found.classes[row] == c
                assert found.usable[row] == (record is not None and record not in own)
                expected = embedding or [0.0] * tiny_store.spec.feature_channels
                assert found.embeddings[row].tolist() == list(expected)
                row += 1
        assert row == len(found.embeddings)


@pytest.mark.parametrize("kind", KINDS)
def test_usable_draws_are_of_their_class_without_replacement_and_of_other_records(
    tiny_store: Reader, settings: DistillationConfig, batch: Batch, kind: Kind, tmp_path: Path
) -> None:
    bank, stored = opened(tiny_store, settings, tmp_path), by_class(tiny_store, kind)
    own = set(batch.record.tolist())
    for _ in range(5):
        found = bank.sample(kind, batch)
        assert found.embeddings.dtype == torch.float32
        assert found.usable.any()
        for c, entries in enumerate(stored):
            allowed = [embedding for record, embedding in entries if record not in own]
            drawn = found.embeddings[found.usable & (found.classes == c)].tolist()
            for embedding in map(tuple, drawn):
                allowed.remove(embedding)  # fails on a stranger, and on a second of the same


def test_a_class_of_few_is_drawn_whole(
    tiny_store: Reader, settings: DistillationConfig, batch: Batch, tmp_path: Path
) -> None:
    many = settings.model_copy(update={"region_contrast": 1000})
    found = opened(tiny_store, many, tmp_path).sample("region", batch)
    own = set(batch.record.tolist())
    for c, entries in enumerate(by_class(tiny_store, "region")):
        others = sum(record not in own for record, _ in entries)
        assert int(found.usable[found.classes == c].sum()) == others


def test_every_embedding_is_drawn_equally_often(
    tiny_store: Reader, settings: DistillationConfig, batch: Batch, tmp_path: Path
) -> None:
    few = settings.model_copy(update={"pixel_contrast": 2 * len(tiny_store.spec.class_names)})
    bank, stored = opened(tiny_store, few, tmp_path), by_class(tiny_store, "pixel")
    c = max(range(len(stored)), key=lambda k: len(stored[k]))
    entries = [embedding for _, embedding in stored[c]]
    assert len(set(entries)) == len(entries) >= 12
    foreign = replace(batch, record=torch.tensor([-7, -8]))
    counts, draws = dict.fromkeys(entries, 0), 1500
    for _ in range(draws):
        found = bank.sample("pixel", foreign)
        for embedding in found.embeddings[found.classes == c].tolist():
            counts[tuple(embedding)] += 1
    expected, values = draws * 3 / len(entries), np.array(list(counts.values()))
    degrees = len(entries) - 1
    # Chi-square; three standard deviations above its mean is about p = 0.004.
    limit = degrees + 3 * np.sqrt(2 * degrees)
    assert ((values - expected) ** 2 / expected).sum() < limit


def test_the_terms_do_not_know_which_memory_they_have(
    tiny_store: Reader, tiny_params: Params, batch: Batch, tmp_path: Path
) -> None:
    raw = tiny_params.students["r18_cirkd"].model_dump()
    raw["distillation"]["memory"] = "bank"
    run = StudentConfig.model_validate(raw)
    student = build_network(run.architecture, tiny_store.spec.num_classes).train()
    objective = Objective(student, tiny_store.spec, run, CPU)
    objective.fill(tiny_store, banks=tmp_path)
    terms = objective.compute_terms(batch)
    assert {"memory_pixel", "memory_region"} <= set(terms)
    assert all(torch.isfinite(term) and term > 0 for term in terms.values())
    assert set(objective.parts["memory"].state_dict()) == {"generator"}
