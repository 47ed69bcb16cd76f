"""Time and memory of the relational losses against plain autograd and against bare products."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pipeline.benchmarks.naive import naive_kl, naive_minibatch
from pipeline.benchmarks.peak import in_fresh_process, resident_peak_bytes
from pipeline.benchmarks.timing import interleaved_medians
from pipeline.ops.embedding import embed
from pipeline.ops.pairwise_similarity_kl import batch_similarity_kl
from pipeline.ops.similarity_kl import similarity_kl

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Problem:
    """Sizes of the memory term (rows, columns) and of the mini-batch term (images, pixels)."""

    num_rows: int = 8192
    num_columns: int = 4104
    num_images: int = 4
    num_pixels: int = 2048
    channels: int = 256
    temperature: float = 0.1

    @property
    def batch_bytes(self) -> int:
        """Return the bytes of one float32 copy of the batch's embeddings."""
        return self.num_images * self.num_pixels * self.channels * FLOAT_BYTES


CROP = Problem(num_pixels=64 * 128)  # a 512 x 1024 crop at output stride 8


def benchmark(
    problem: Problem = Problem(),
    crop: Problem = CROP,
    *,
    num_runs: int = 7,
    memory_bytes: int = 16 * 10**9,
    largest_run: int = 8,
) -> dict[str, float]:
    """Measure the fused losses, float32, on all cores of the CPU.

    Times are medians of interleaved runs; a peak is the highest RSS of a fresh process during the
    call minus the RSS before it. The largest batches are computed from the peaks of one and of two
    images: plain autograd's grows with the pairs of images, the fused form's with the images. They
    are then run, as far as free memory and `largest_run` (time grows with its square) allow.

    Args:
        problem: sizes that are measured.
        crop: one image of the size that the largest batch is computed for.
        num_runs: timed runs of each case.
        memory_bytes: what the largest batch must fit in, embeddings included.
        largest_run: the largest batch that is run.

    Returns:
        Ratios as named in the tables of the documentation, seconds, bytes and batch sizes.
    """
    times = interleaved_medians({name: build(problem) for name, build in CASES.items()}, num_runs)
    peaks = {name: _peak_bytes(name, problem) for name in CASES if name != "gemm_floor"}
    return {
        "memory_time_ratio": times["memory_fused"] / times["memory_naive"],
        "memory_peak_ratio": peaks["memory_fused"] / peaks["memory_naive"],
        "gemm_floor_ratio": times["memory_fused"] / times["gemm_floor"],
        "batch_time_ratio": times["batch_fused"] / times["batch_naive"],
        "batch_peak_ratio": peaks["batch_fused"] / peaks["batch_naive"],
        **{f"{name}_s": seconds for name, seconds in times.items()},
        **{f"{name}_peak_bytes": peak for name, peak in peaks.items()},
        **_largest_batches(crop, memory_bytes, largest_run),
        "num_threads": torch.get_num_threads(),
    }


def _memory_inputs(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    student, teacher, contrast = (
        embed(torch.randn(n, problem.channels, generator=g))
        for n in (problem.num_rows, problem.num_rows, problem.num_columns)
    )
    return student.requires_grad_(), teacher, contrast


def _batch_inputs(problem: Problem) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shape = problem.num_images, problem.num_pixels, problem.channels
    student, teacher = (embed(torch.randn(shape, generator=g), dim=2) for _ in range(2))
    return student.requires_grad_(), teacher


def _backward(student: Tensor, compute: Callable[[], Tensor]) -> Callable[[], None]:
    """Build a call that computes a loss, and its gradient anew."""

    def call() -> None:
        student.grad = None
        torch.autograd.backward(compute())

    return call


def _memory_naive(problem: Problem) -> Callable[[], None]:
    student, teacher, contrast = _memory_inputs(problem)
    kl = partial(naive_kl, student, teacher, contrast, contrast, problem.temperature)
    return _backward(student, kl)


def _memory_fused(problem: Problem) -> Callable[[], None]:
    student, teacher, contrast = _memory_inputs(problem)
    inputs, temperature = (student, teacher, contrast, contrast), problem.temperature
    return _backward(student, lambda: similarity_kl(*inputs, temperature=temperature).value)


def _gemm_floor(problem: Problem) -> Callable[[], None]:
    """Build the three products that the memory term cannot do without, into allocated outputs."""
    student, teacher, contrast = (x.detach() for x in _memory_inputs(problem))
    similarities = torch.empty(problem.num_rows, problem.num_columns)
    gradient = torch.empty(problem.num_rows, problem.channels)

    def call() -> None:
        torch.mm(student, contrast.T, out=similarities)
        torch.mm(teacher, contrast.T, out=similarities)
        torch.mm(similarities, contrast, out=gradient)

    return call


def _batch_naive(problem: Problem) -> Callable[[], None]:
    student, teacher = _batch_inputs(problem)
    kl = partial(naive_minibatch, student, teacher, student, teacher, problem.temperature)
    return _backward(student, kl)


def _batch_fused(problem: Problem) -> Callable[[], None]:
    student, teacher = _batch_inputs(problem)
    valid = torch.ones(student.shape[:2], dtype=torch.bool)
    inputs, temperature = (student, teacher, valid), problem.temperature
    return _backward(student, lambda: batch_similarity_kl(*inputs, temperature=temperature).value)


CASES: dict[str, Callable[[Problem], Callable[[], None]]] = {
    "gemm_floor": _gemm_floor,
    "memory_naive": _memory_naive,
    "memory_fused": _memory_fused,
    "batch_naive": _batch_naive,
    "batch_fused": _batch_fused,
}
TINY = Problem(8, 8, 2, 8, 8)


def _peak_bytes(name: str, problem: Problem) -> int:
    """Measure the peak of one call in a fresh process."""
    return in_fresh_process(_peak_here, name, problem)


def _peak_here(name: str, problem: Problem) -> int:
    CASES[name](TINY)()  # threads and libraries start here, not in what is measured
    return resident_peak_bytes(CASES[name](problem))


def _largest_batches(crop: Problem, memory_bytes: int, largest_run: int) -> dict[str, float]:
    report: dict[str, float] = {}
    for name, power in (("naive", 2), ("fused", 1)):
        computed = _peak_model(f"batch_{name}", crop, power)
        largest = 0
        while _inputs_bytes(crop, largest + 1) + computed(largest + 1) <= memory_bytes:
            largest += 1
        report[f"largest_batch_{name}"] = largest
        run = min(largest, largest_run)
        while run > 0 and _inputs_bytes(crop, run) + computed(run) > 0.9 * _free_bytes():
            run -= 1
        report[f"run_batch_{name}"] = run
        if run:
            batch = replace(crop, num_images=run)
            report[f"run_batch_{name}_peak_bytes"] = _peak_bytes(f"batch_{name}", batch)
            report[f"run_batch_{name}_computed_bytes"] = computed(run)
    return report


def _peak_model(name: str, crop: Problem, power: int) -> Callable[[int], float]:
    """Fit the peak of any number of images, a constant and a slope, to those of one and of two."""
    one, two = (_peak_bytes(name, replace(crop, num_images=n)) for n in (1, 2))
    slope = max(0, two - one) / (2**power - 1)
    return lambda num_images: one + slope * (num_images**power - 1)


def _inputs_bytes(crop: Problem, num_images: int) -> int:
    return 2 * replace(crop, num_images=num_images).batch_bytes


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
