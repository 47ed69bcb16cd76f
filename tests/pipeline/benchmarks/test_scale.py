"""The scale benchmark, on few workers and units."""

from pathlib import Path

import pytest

from pipeline.benchmarks.scale import benchmark


@pytest.mark.slow
def test_it_measures_extractions_and_a_resume(tmp_path: Path) -> None:
    *_, figures = benchmark(tmp_path, num_workers=(1, 2), num_units=4, num_resumed=10)
    assert list(figures) == ["num_units", "num_resumed", "workers_1", "workers_2", "resume"]
    for name in ("workers_1", "workers_2", "resume"):
        group = figures[name]
        assert isinstance(group, dict)
        assert all(value > 0 for value in group.values())
