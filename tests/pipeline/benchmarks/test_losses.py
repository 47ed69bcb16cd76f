"""The benchmark of the losses compares equal work and reports what it promises."""

import pytest
import torch

from pipeline.benchmarks import losses

SMALL = losses.Problem(num_rows=96, num_columns=64, num_images=2, num_pixels=32, channels=16)


@pytest.mark.parametrize("term", ["memory", "batch"])
def test_both_ways_compute_the_same_gradient(term, monkeypatch):
    students = []
    inputs = getattr(losses, f"_{term}_inputs")

    def remembered(problem):
        tensors = inputs(problem)
        students.append(tensors[0])
        return tensors

    monkeypatch.setattr(losses, f"_{term}_inputs", remembered)
    for way in ("naive", "fused"):
        losses.CASES[f"{term}_{way}"](SMALL)()
    assert students[0].grad.abs().max() > 0
    torch.testing.assert_close(students[0].grad, students[1].grad)


def test_largest_batches_by_hand(monkeypatch):
    # Inputs: 2 x 64 bytes an image. Naive keeps 192 bytes for each pair of images; fused 1000 bytes
    # of blocks, and 320 an image.
    crop = losses.Problem(num_pixels=4, channels=4)
    peaks = {"batch_naive": lambda n: 192 * n**2, "batch_fused": lambda n: 1000 + 320 * n}
    monkeypatch.setattr(losses, "_peak_bytes", lambda name, case: peaks[name](case.num_images))
    monkeypatch.setattr(losses, "_free_bytes", lambda: 10**9)
    memory = 1000 + 20 * (320 + 128)
    found = losses._largest_batches(crop, memory, largest_run=8)
    assert found["largest_batch_fused"] == 20
    assert found["run_batch_fused"] == 8
    computed = found["run_batch_fused_computed_bytes"]
    assert computed == found["run_batch_fused_peak_bytes"] == 1000 + 320 * 8
    assert found["largest_batch_naive"] == 6  # 192 * 36 + 128 * 6 bytes; 7 images need 10 304
    monkeypatch.setattr(losses, "_free_bytes", lambda: 1300)
    found = losses._largest_batches(crop, memory, largest_run=8)
    assert found["run_batch_fused"] == 0  # 1448 bytes for one
    assert found["run_batch_naive"] == 2  # 192 * 4 + 128 * 2 of 1170


@pytest.mark.slow
def test_reports_every_promised_field():
    crop = losses.Problem(num_pixels=256, channels=16)
    report = losses.benchmark(
        losses.Problem(num_rows=1024, num_columns=512, num_images=2, num_pixels=512, channels=16),
        crop,
        num_runs=1,
        memory_bytes=50 * 2**20,
        largest_run=2,
    )
    promised = {
        "memory_time_ratio",
        "memory_peak_ratio",
        "gemm_floor_ratio",
        "batch_time_ratio",
        "batch_peak_ratio",
        "largest_batch_naive",
        "largest_batch_fused",
    }
    assert promised <= report.keys()
    assert all(report[name] > 0 for name in promised)
    assert report["largest_batch_fused"] > report["largest_batch_naive"]
    assert report["run_batch_fused"] == report["run_batch_naive"] == 2
