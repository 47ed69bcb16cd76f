"""Fidelity: zero against itself, and the size that an encoding's rounding should have."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.config.params import Encodings, Params, StoreConfig
from pipeline.extraction.job import Extraction
from pipeline.extraction.spot_check import compare, spot_check
from pipeline.report.record_figure import draw_record
from pipeline.runtime.rng import torch_generator
from store.reader import Reader


def maps() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch_generator(0, "maps")
    logits = torch.randn(2, 5, 6, 7, generator=generator)
    return logits, torch.rand(2, 16, 6, 7, generator=generator)


def test_nothing_is_lost_against_itself() -> None:
    found = compare(maps(), maps(), torch_generator(0, "compare"))
    assert found["logits_kl"] == pytest.approx(0, abs=1e-7)
    assert found["similarity_kl"] == pytest.approx(0, abs=1e-7)
    assert found["argmax_kept"] == 1
    assert found["features_cosine"] == pytest.approx(1)


def test_noise_is_seen_in_every_figure() -> None:
    logits, features = maps()
    noisy = logits + torch.randn(logits.shape, generator=torch_generator(1, "noise"))
    mixed = features + torch.rand(features.shape, generator=torch_generator(2, "noise"))
    found = compare((logits, features), (noisy, mixed), torch_generator(0, "compare"))
    assert found["logits_kl"] > 0.1
    assert found["similarity_kl"] > 0.01
    assert found["argmax_kept"] < 1
    assert found["features_cosine"] < 0.99


def test_the_default_encodings_are_as_good_as_measured_before(
    tiny_store: Reader, tiny_job: Callable[[StoreConfig], Extraction], tiny_params: Params
) -> None:
    job = tiny_job(tiny_params.store)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    found = spot_check(job, tiny_store, range(6), torch_generator(0, "spot"), progress)
    assert told == [(0, 3), (1, 3), (3, 3)]
    assert found["images_equal"] == 1
    assert found["logits_kl"] < 1e-5
    assert found["similarity_kl"] < 1e-4
    assert found["features_cosine"] > 0.9999
    # A stride-aligned crop sees other surroundings, a flip the same ones mirrored.
    assert 0.5 < found["crop_cosine"] <= 1
    assert 0.5 < found["flip_cosine"] <= 1


def test_a_coarser_encoding_is_seen(
    build_store: Callable[[StoreConfig], Reader],
    tiny_job: Callable[[StoreConfig], Extraction],
    tiny_params: Params,
) -> None:
    encodings = Encodings(logits="top_3", features="uint4_per_channel")
    settings = tiny_params.store.model_copy(update={"encodings": encodings})
    coarse = spot_check(
        tiny_job(settings), build_store(settings), range(6), torch_generator(0, "spot")
    )
    fine = spot_check(
        tiny_job(tiny_params.store),
        build_store(tiny_params.store),
        range(6),
        torch_generator(0, "spot"),
    )
    assert coarse["similarity_kl"] > fine["similarity_kl"]
    assert coarse["logits_kl"] > fine["logits_kl"]


@pytest.mark.parametrize(("target", "absent"), [("logits", "features"), ("features", "logits")])
def test_targets_that_are_not_stored_are_not_compared(
    target: str,
    absent: str,
    build_store: Callable[[StoreConfig], Reader],
    tiny_job: Callable[[StoreConfig], Extraction],
    tiny_params: Params,
    tiny_store: Reader,
    tmp_path: Path,
) -> None:
    settings = tiny_params.store.model_copy(update={"targets": (target,)})
    part, job = build_store(settings), tiny_job(settings)
    found = spot_check(job, part, range(6), torch_generator(0, "spot"))
    whole = spot_check(
        tiny_job(tiny_params.store), tiny_store, range(6), torch_generator(0, "spot")
    )
    assert found == {name: whole[name] for name in found}
    assert f"{target}_kl" in found or "similarity_kl" in found
    assert f"{absent}_kl" not in found
    draw_record(part, 0, tmp_path / "record.png")
    assert (tmp_path / "record.png").stat().st_size > 0
