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
    # An image: 4 pixels of 4 channels, 64 bytes a copy; a pair: a matrix of 64 bytes. Measured at
    # 2 images: 3 matrices for each of 4 pairs, and 5 copies of 128 bytes beside the blocks.
    problem = losses.Problem(num_images=2, num_pixels=4, channels=4)
    blocks = losses.BLOCK_BYTES
    peaks = {"batch_naive": 3 * 4 * 64, "batch_fused": 5 * 128 + blocks}
    monkeypatch.setattr(losses, "_peak_bytes", lambda name, problem: problem.num_images)
    monkeypatch.setattr(losses, "_free_bytes", lambda: 10**9)
    memory = blocks + 64 * 7 * 20  # 20 images: 2 copies of inputs and 5 more
    found = losses._largest_batches(problem, problem, peaks, memory, largest_run=8)
    assert found["largest_batch_fused"] == 20
    assert found["run_batch_fused"] == found["run_batch_fused_peak_bytes"] == 8
    assert found["run_batch_fused_computed_bytes"] == 8 * 5 * 64 + blocks
    naive = found["largest_batch_naive"]
    assert 64 * (3 * naive**2 + 2 * naive) <= memory < 64 * (3 * (naive + 1) ** 2 + 2 * naive + 2)
    monkeypatch.setattr(losses, "_free_bytes", lambda: 2000)
    found = losses._largest_batches(problem, problem, peaks, memory, largest_run=8)
    assert found["run_batch_fused"] == 0  # no room for the blocks
    assert found["run_batch_naive"] == 2  # 3 * 4 * 64 + 4 * 64 bytes; 3 images need 2112


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
