"""The stream: the same windows of records whatever the workers; it resumes, in bounded memory."""

import time
from collections.abc import Iterator
from multiprocessing import Value

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from pipeline.config.augment import WHOLE, Augment
from pipeline.loading.augmentation import draw_window
from pipeline.loading.batch import Batch
from pipeline.loading.memory_budget import batch_bytes, fit_prefetch, in_flight_bytes
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.loading.workers import PREFETCH_FACTOR, open_loader
from store.arrays import TARGETS
from store.reader import Reader

CPU = torch.device("cpu")
AUGMENT = Augment(flip_probability=0.5, crop_height=16, crop_width=24)
MAPS = ("image", "labels", "grid_labels", "grid_valid")


def batches(reader: Reader, steps: range = range(4), **options: object) -> list[Batch]:
    return list(stream(reader, LoaderConfig(5, 2, **options), steps, CPU))


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    assert batch.targets is not None
    return {**{name: getattr(batch, name) for name in ("record", *MAPS)}, **batch.targets.arrays}


@pytest.mark.parametrize("augment", [WHOLE, AUGMENT], ids=["whole", "cut"])
def test_a_batch_is_the_same_with_any_number_of_workers(
    augment: Augment, tiny_store: Reader
) -> None:
    alone, together = (
        batches(tiny_store, augment=augment, num_workers=number) for number in (0, 2)
    )
    assert len(alone) == len(together) == 4
    for one, other in zip(alone, together, strict=True):
        expected = tensors_of(other)
        assert all(torch.equal(x, expected[name]) for name, x in tensors_of(one).items())


def test_a_stream_goes_on_where_it_stopped(tiny_store: Reader) -> None:
    whole = batches(tiny_store, range(7), augment=AUGMENT)
    rest = batches(tiny_store, range(3, 7), augment=AUGMENT)
    numbers = [batch.record.tolist() for batch in whole]
    assert [batch.record.tolist() for batch in rest] == numbers[3:]
    assert all(torch.equal(a.image, b.image) for a, b in zip(whole[3:], rest, strict=True))
    # Three batches an epoch: six records, each once.
    for epoch in (numbers[:3], numbers[3:6]):
        assert sorted(record for batch in epoch for record in batch) == list(range(6))
    assert numbers[:3] != numbers[3:6]


def test_a_cut_batch_is_a_window_of_the_whole_one(tiny_store: Reader) -> None:
    flips = set()
    pairs = zip(batches(tiny_store), batches(tiny_store, augment=AUGMENT), strict=True)
    for step, (whole, cut) in enumerate(pairs):
        assert torch.equal(whole.record, cut.record)
        before, after = tensors_of(whole), tensors_of(cut)
        for place, record in enumerate(whole.record.tolist()):
            valid = before["grid_valid"][place].numpy()
            window = draw_window(AUGMENT, valid, 8, 5, step, record)
            flips.add(window.flip)
            for name in (*MAPS, "logits", "features"):
                cell_px = 8 if name in ("image", "labels") else 1
                expected = window.cut(before[name][place].numpy(), cell_px)
                assert np.array_equal(after[name][place].numpy(), expected), name
            attention = window.cut(before["auxiliary_attention"][place].numpy())
            attention = attention / np.linalg.norm(attention)
            assert after["auxiliary_attention"][place].numpy() == pytest.approx(attention, abs=1e-6)
            for name in ("region_center", "region_pixels"):
                assert torch.equal(after[name][place], before[name][place])
    assert flips == {False, True}


def test_a_mirrored_record_keeps_its_attention_bit_for_bit(tiny_store: Reader) -> None:
    for whole, cut in zip(
        batches(tiny_store),
        batches(tiny_store, augment=Augment(flip_probability=1.0, crop_height=32, crop_width=32)),
        strict=True,
    ):
        before, after = (tensors_of(batch) for batch in (whole, cut))
        for name in (*MAPS, "logits", "features", "auxiliary_attention"):
            assert torch.equal(after[name], before[name].flip(-1)), name


def test_a_crop_larger_than_the_records_is_refused(tiny_store: Reader) -> None:
    with pytest.raises(ValueError, match="does not fit into records of 32 x 32"):
        batches(tiny_store, augment=Augment(crop_height=40))


def test_a_batch_larger_than_the_store_is_refused(tiny_store: Reader) -> None:
    with pytest.raises(ValueError, match=r"batch_size is 64.*holds 6 records"):
        next(stream(tiny_store, LoaderConfig(1, 64), range(1), CPU))


def test_labels_only_runs_read_no_targets(tiny_store: Reader) -> None:
    (batch,) = batches(tiny_store, range(1), needs=())
    assert batch.targets is None
    assert batch.image.shape == (2, 3, 32, 32)


def test_anchors_leave_void_out_unless_a_record_has_no_label() -> None:
    labels = torch.tensor([[[255, 3]], [[255, 255]]], dtype=torch.uint8)
    valid = torch.tensor([[[True, True]], [[True, False]]])
    nothing = torch.zeros(0)
    batch = Batch(nothing, nothing, nothing, labels, valid, None)
    assert batch.anchors.tolist() == [[[False, True]], [[True, False]]]


@pytest.mark.parametrize("needs", [(), ("logits",), TARGETS], ids=["ce", "kd", "all"])
def test_bytes_of_a_batch_are_what_a_worker_hands_over(
    needs: tuple[str, ...], tiny_store: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[int] = []

    def weigh(reader: Reader, raw: dict[str, torch.Tensor], needs: object) -> None:
        handed.append(sum(x.nbytes for x in raw.values()))

    monkeypatch.setattr("pipeline.loading.stream.decode_batch", weigh)
    batches(tiny_store, range(2), needs=needs)
    assert handed == [batch_bytes(tiny_store.spec, needs, 2)] * 2


def test_prefetching_stays_within_its_memory(tiny_store: Reader) -> None:
    wanted = tiny_store.spec, ("logits", "features"), 2
    one = batch_bytes(*wanted)
    assert in_flight_bytes(*wanted, num_workers=0, prefetch_factor=2) == 2 * one
    assert in_flight_bytes(*wanted, num_workers=3, prefetch_factor=2) == 11 * one
    assert in_flight_bytes(*wanted, 3, 2, pin_memory=True) == 12 * one
    for limit in (8 * one, 10 * one, 11 * one, 100 * one):
        factor, in_flight = fit_prefetch(*wanted, 3, False, limit)
        assert in_flight == in_flight_bytes(*wanted, 3, factor) <= limit
        assert factor == (PREFETCH_FACTOR if limit >= 11 * one else 1)
    with pytest.raises(ValueError, match=r"--workers 3.*lower --workers or .*raise --ahead-mb"):
        fit_prefetch(*wanted, 3, False, 8 * one - 1)


class _Counted(Dataset[int]):
    """Counts the items that any worker has been asked for."""

    def __init__(self) -> None:
        self.begun = Value("i", 0)

    def __getitem__(self, item: int) -> int:
        with self.begun.get_lock():
            self.begun.value += 1
        return item


@pytest.mark.parametrize("prefetch_factor", [1, 2])
def test_workers_are_never_further_ahead_than_was_counted(prefetch_factor: int) -> None:
    counted, num_workers, steps = _Counted(), 2, 12
    loader: Iterator[int] = iter(
        open_loader(counted, range(steps), 0, num_workers, False, prefetch_factor)
    )
    ahead = []
    for item in loader:
        # Let the workers do all they were asked for: they are ahead, and stay where they are.
        expected = min(steps, item + 1 + num_workers * prefetch_factor)
        deadline = time.monotonic() + 60
        while counted.begun.value < expected and time.monotonic() < deadline:
            time.sleep(0.001)
        ahead.append(counted.begun.value - (item + 1))
    assert max(ahead) == num_workers * prefetch_factor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_what_the_cpu_gets(tiny_store: Reader) -> None:
    config = LoaderConfig(5, 2, num_workers=1, augment=AUGMENT)
    there = stream(tiny_store, config, range(6), torch.device("cuda"))
    here = stream(tiny_store, config, range(6), CPU)
    for gpu, cpu in zip(there, here, strict=True):
        torch.cuda._sleep(10**8)  # a step that the next copy must not overtake
        expected = tensors_of(cpu)
        assert all(torch.equal(x.cpu(), expected[name]) for name, x in tensors_of(gpu).items())
