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
    # An image takes 2 * 64 bytes of inputs. Plain autograd keeps 192 bytes a pair beside 10, the
    # fused form 320 an image beside 1000.
    crop = losses.Problem(num_pixels=4, channels=4)
    peaks = {
        "batch_naive": lambda num_images: 10 + 192 * num_images**2,
        "batch_fused": lambda num_images: 1000 + 320 * num_images,
    }
    monkeypatch.setattr(losses, "_peak_bytes", lambda name, crop: peaks[name](crop.num_images))
    monkeypatch.setattr(losses, "_free_bytes", lambda: 10**9)
    found = losses._largest_batches(crop, 1000 + 448 * 20, largest_run=8)
    assert found["largest_batch_fused"] == 20
    assert found["largest_batch_naive"] == 6  # 10 + 192 * 36 + 128 * 6 = 7690; 7 need 10314
    assert found["run_batch_fused"] == 8
    for name in ("naive", "fused"):
        peak = found[f"run_batch_{name}_peak_bytes"]
        assert found[f"run_batch_{name}_computed_bytes"] == peak
    monkeypatch.setattr(losses, "_free_bytes", lambda: 1200)
    found = losses._largest_batches(crop, 1000 + 448 * 20, largest_run=8)
    assert found["run_batch_fused"] == 0  # one image needs 1448, and a tenth stays free
    assert found["run_batch_naive"] == 2  # 10 + 192 * 4 + 128 * 2 = 1034


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
