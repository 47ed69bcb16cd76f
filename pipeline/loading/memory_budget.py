"""How much memory batches take on their way from the store to the step."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.datasets.views import TABLE
from pipeline.loading.stream import stream_arrays
from pipeline.loading.workers import PREFETCH_FACTOR
from store.schema import StoreSpec, array_specs


def batch_bytes(spec: StoreSpec, needs: Collection[str], batch_size: int) -> int:
    """Count the bytes of a batch of whole records as a worker hands it over: raw, encoded."""
    arrays, cells = array_specs(spec), spec.feature_height * spec.feature_width
    names = set(stream_arrays(spec, needs)).difference(TABLE)
    # The record's number, and labels and valid mask at the feature grid, are made of what is read.
    return batch_size * (sum(arrays[name].record_bytes for name in names) + 8 + 2 * cells)


def in_flight_bytes(
    spec: StoreSpec,
    needs: Collection[str],
    batch_size: int,
    num_workers: int,
    prefetch_factor: int,
    pin_memory: bool = False,
) -> int:
    """Bound the host memory of all batches that are read and not used up; cropped ones take less.

    Each worker is asked for `prefetch_factor` batches that nobody has taken yet, and has the one it
    makes or hands over twice; pinning has one twice; the step has the one in use and the next.
    Beside them a GPU holds two batches (`workers.move_ahead`), the one in use decoded.
    """
    batches = num_workers * (prefetch_factor + 1) + int(pin_memory) + 2
    return batches * batch_bytes(spec, needs, batch_size)


def fit_prefetch(
    spec: StoreSpec,
    needs: Collection[str],
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
    limit_bytes: int,
) -> tuple[int, int]:
    """Choose the prefetch factor, at most PREFETCH_FACTOR, with which all batches fit the limit.

    Returns:
        The factor, and `in_flight_bytes` with it.

    Raises:
        ValueError: they do not fit even with one batch ahead of each worker.
    """
    for factor in range(PREFETCH_FACTOR, 0, -1):
        in_flight = in_flight_bytes(spec, needs, batch_size, num_workers, factor, pin_memory)
        if in_flight <= limit_bytes:
            return factor, in_flight
    raise ValueError(
        f"batches of {batch_size} records, read ahead by --workers {num_workers}, take up to "
        f"{in_flight / 1e6:.1f} MB; expected at most {limit_bytes / 1e6:.1f} MB: lower --workers "
        "or training.batch_size, or raise --ahead-mb"
    )
