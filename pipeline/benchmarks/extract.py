"""What extraction adds to the bare teacher forward: reading, encoding, writing, the journal."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.benchmarks.store import NUM_RECORDS, fixed_views
from pipeline.benchmarks.timing import interleaved_medians
from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction
from pipeline.extraction.records import draw_records
from pipeline.extraction.targets import forward_teacher
from store.writer import Writer

HEIGHT, WIDTH = 256, 512


def benchmark(
    job: Extraction,
    folder: Path,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    unit_size: int = 8,
    num_runs: int = 3,
) -> dict[str, float]:
    """Extract 32 views, and run the teacher alone on the same batches, with the same threads.

    Args:
        job: dataset, teacher, encodings, precision, threads and forward batch to measure with.
        folder: an empty one, for the stores.
        height: of the views, in pixels.
        width: of the views, in pixels.
        unit_size: records of a unit; several units, so that the overlap is seen.
        num_runs: timed rounds, interleaved.

    Returns:
        overhead_ratio: extraction / bare forward; extract_s, forward_s; views_per_s.
    """
    job = fixed_views(job, height, width, unit_size)
    settings = job.settings
    images = draw_records(job.index, settings, range(NUM_RECORDS))["image"]
    torch.set_num_threads(settings.threads)

    def forward() -> None:
        # To the host, as extraction needs it: on a GPU this also waits for the result.
        forward_teacher(job, images).cpu()

    def run() -> None:
        with Writer.open(folder / str(len(list(folder.iterdir()))), job.spec) as writer:
            assert extract(job, writer)

    seconds = interleaved_medians({"forward": forward, "extract": run}, num_runs)
    return {
        "overhead_ratio": seconds["extract"] / seconds["forward"],
        "extract_s": seconds["extract"],
        "forward_s": seconds["forward"],
        "views_per_s": NUM_RECORDS / seconds["extract"],
        "num_threads": settings.threads,
    }
