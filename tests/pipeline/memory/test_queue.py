"""Queues against a plain reference with one deque a class."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.memory.queue import Queue
from pipeline.ops.embedding import embed
from store.encodings.registry import find_encoding
from store.schema import VOID

K, CAPACITY = 3, 4


def entries(first, classes):
    """Entries whose one channel and whose record are their running number."""
    numbers = torch.arange(first, first + len(classes))
    return numbers[:, None].float(), torch.tensor(classes, dtype=torch.uint8), numbers


def contents(queue):
    """The set of stored numbers of each class, through `sample` alone."""
    found = queue.sample(queue.capacity, torch.Generator().manual_seed(0))
    return [
        set(found.embeddings[found.usable & (found.classes == c), 0].int().tolist())
        for c in range(queue.num_classes)
    ]


@given(
    st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 2, VOID]), max_size=11), min_size=1, max_size=6)
)
@settings(max_examples=80)
def test_holds_the_newest_of_each_class(pushes):
    queue, reference, first = Queue(K, CAPACITY, 1), [deque(maxlen=CAPACITY) for _ in range(K)], 0
    for classes in pushes:
        queue.push(*entries(first, classes))
        for number, c in enumerate(classes, start=first):
            if c != VOID:
                reference[c].append(number)
        first += len(classes)
        assert contents(queue) == [set(r) for r in reference]
        assert queue.num_filled.tolist() == [len(r) for r in reference]


def test_hand_worked_wrap_around():
    queue = Queue(num_classes=2, capacity=3, dim=1)
    queue.push(*entries(0, [1, 0, VOID, 1]))
    assert contents(queue) == [{1}, {0, 3}]
    queue.push(*entries(4, [1, 1]))  # the second wraps and replaces 0
    assert contents(queue) == [{1}, {3, 4, 5}]
    queue.push(*entries(6, [1, 1, 1, 1, 1]))  # more than fit: the newest three stay
    assert contents(queue) == [{1}, {8, 9, 10}]
    queue.push(*entries(11, [1]))  # and the oldest of those leaves first
    assert contents(queue) == [{1}, {9, 10, 11}]


def test_an_empty_queue_is_not_usable():
    found = Queue(K, CAPACITY, 5).sample(2, torch.Generator())
    assert found.embeddings.shape == (2 * K, 5)
    assert not found.usable.any()
    assert (found.embeddings == 0).all()


def test_sampling_is_balanced_without_replacement_and_filled_first():
    queue = Queue(K, CAPACITY, 1)
    queue.push(*entries(0, [0, 0, 0, 0, 1, 1]))
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        found = queue.sample(3, g)
        assert found.classes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        numbers = found.embeddings[:, 0].int().tolist()
        assert len(set(numbers[:3])) == 3
        assert set(numbers[:3]) <= {0, 1, 2, 3}
        assert found.usable.tolist()[:3] == [True] * 3
        usable = found.usable[3:6]
        assert found.embeddings[3:6][usable].flatten().sort().values.tolist() == [4, 5]
        assert not found.usable[6:].any()


def test_every_filled_slot_is_drawn_equally_often():
    queue = Queue(1, 8, 1)
    queue.push(*entries(0, [0] * 6))
    g, draws = torch.Generator().manual_seed(0), 3000
    counts = torch.zeros(6)
    for _ in range(draws):
        counts[queue.sample(2, g).embeddings[:, 0].long()] += 1
    expected = draws * 2 / 6
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi-square, 5 degrees, p = 0.001


def test_slots_of_excluded_records_are_not_usable():
    queue = Queue(1, 6, 1)
    embeddings = torch.arange(6.0)[:, None]
    queue.push(embeddings, torch.zeros(6, dtype=torch.int64), torch.tensor([7, 8, 7, 9, 9, 5]))
    found = queue.sample(6, torch.Generator(), exclude_records=torch.tensor([7, 5]))
    assert sorted(found.embeddings[found.usable, 0].tolist()) == [1, 3, 4]


def test_same_generator_same_draw():
    queue = Queue(K, CAPACITY, 1)
    queue.push(*entries(0, [0, 1, 2] * 4))
    a, b = (queue.sample(2, torch.Generator().manual_seed(s)).embeddings for s in (3, 3))
    assert (a == b).all()
    many = {
        tuple(queue.sample(2, torch.Generator().manual_seed(s)).embeddings[:, 0].tolist())
        for s in range(9)
    }
    assert len(many) > 1


def test_state_continues_bit_for_bit():
    queue, again = Queue(K, CAPACITY, 1), Queue(K, CAPACITY, 1)
    queue.push(*entries(0, [0, 1, 0, 0, VOID, 0, 0]))
    state = queue.state_dict()
    queue.push(*entries(7, [0, 1, 1, 2]))
    again.load_state_dict(state)
    again.push(*entries(7, [0, 1, 1, 2]))
    for name, tensor in queue.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    a, b = (q.sample(3, torch.Generator().manual_seed(0)) for q in (queue, again))
    assert torch.equal(a.embeddings, b.embeddings)
    assert torch.equal(a.usable, b.usable)


def test_state_is_a_copy_without_the_dummy_slot():
    queue = Queue(K, CAPACITY, 1)
    state = queue.state_dict()
    queue.push(*entries(1, [0, VOID]))
    assert (state["embeddings"] == 0).all()
    assert state["embeddings"].shape == (K * CAPACITY, 1)


def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match="expected"):
        Queue(K, CAPACITY, 1).load_state_dict(Queue(K, CAPACITY + 1, 1).state_dict())


def test_bfloat16_storage():
    queue = Queue(1, 2, 2, dtype=torch.bfloat16)
    queue.push(torch.tensor([[1 / 3, 0.5]]), torch.zeros(1, dtype=torch.uint8), torch.tensor([0]))
    found = queue.sample(1, torch.Generator())
    assert queue.state_dict()["embeddings"].dtype == torch.bfloat16
    assert found.embeddings.dtype == torch.float32
    torch.testing.assert_close(found.embeddings, torch.tensor([[1 / 3, 0.5]]), rtol=2**-8, atol=0)


UINT8 = find_encoding("uint8_per_pixel")


def unit_embeddings(count, dim, seed=0):
    """Non-negative, of length one, as features after a ReLU are; the first is zero."""
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).relu()
    drawn[0] = 0
    return embed(drawn)


def uint8_pair(num_classes=K, capacity=CAPACITY, dim=16):
    return (
        Queue(num_classes, capacity, dim),
        Queue(num_classes, capacity, dim, dtype=torch.uint8),
    )


@given(
    st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 2, VOID]), max_size=11), min_size=1, max_size=6)
)
@settings(max_examples=40)
def test_uint8_holds_what_float32_holds_within_its_bound(pushes):
    """Wrap-around, fill mask, records and draws are the same; values differ by half a step."""
    exact, small = uint8_pair()
    for number, classes in enumerate(pushes):
        entries = unit_embeddings(len(classes) + 1, 16, number)[1:]
        classes = torch.tensor(classes, dtype=torch.uint8)
        for queue in (exact, small):
            queue.push(entries, classes, torch.full(classes.shape, number))
    assert torch.equal(exact.num_filled, small.num_filled)
    one, other = (
        queue.sample(3, torch.Generator().manual_seed(5), torch.tensor([0]))
        for queue in (exact, small)
    )
    assert torch.equal(one.usable, other.usable)
    assert other.embeddings.dtype == torch.float32
    bound = UINT8.max_error(one.embeddings[:, :, None, None].numpy())[:, :, 0, 0]
    assert ((one.embeddings - other.embeddings).abs() <= torch.from_numpy(bound)).all()


def test_uint8_is_the_stores_encoding():
    entries = unit_embeddings(12, 32)
    _, queue = uint8_pair(1, 12, 32)
    queue.push(entries, torch.zeros(12, dtype=torch.uint8), torch.arange(12))
    expected = UINT8.encode(entries[:, :, None, None].numpy())
    state = queue.state_dict()
    assert (state["embeddings"].numpy() == expected[""][:, :, 0, 0]).all()
    assert (state["scales"].numpy() == expected["_scale"][:, 0, 0]).all()


def test_uint8_takes_a_quarter_of_the_memory():
    exact, small = uint8_pair(dim=256)

    def num_bytes(queue):
        state = queue.state_dict()
        return sum(state[name].nbytes for name in ("embeddings", "scales") if name in state)

    assert num_bytes(small) <= num_bytes(exact) * (1 / 4 + 1 / 256)


def test_uint8_state_continues_bit_for_bit():
    (_, queue), (exact, again) = uint8_pair(), uint8_pair()
    classes, records = torch.tensor([0, 1, 0, 0, VOID, 0, 0]), torch.arange(7)
    queue.push(unit_embeddings(7, 16), classes, records)
    again.load_state_dict(queue.state_dict())
    for one in (queue, again):
        one.push(unit_embeddings(7, 16, seed=1), classes, records + 7)
    for name, tensor in queue.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    with pytest.raises(ValueError, match="expected"):
        exact.load_state_dict(queue.state_dict())


def test_uint8_never_waits_for_the_device():
    """Fake tensors have no values: whatever needs one on the host fails."""
    with FakeTensorMode():
        queue = Queue(3, 4, 5, device="cuda", dtype=torch.uint8)
        queue.push(torch.zeros(6, 5), torch.zeros(6, dtype=torch.int64), torch.arange(6))
        assert queue._decode(torch.zeros(2, dtype=torch.int64, device="cuda")).shape == (2, 5)


def test_refuses_to_draw_more_than_there_are_slots():
    with pytest.raises(ValueError, match="5 per class from 4 slots"):
        Queue(K, CAPACITY, 1).sample(5, torch.Generator())


def test_entries_may_come_from_another_device() -> None:
    """A GPU's queue is filled from arrays on the host; fake tensors need no GPU for that."""
    with FakeTensorMode():
        queue = Queue(3, 4, 5, device="cuda")
        queue.push(torch.zeros(6, 5), torch.zeros(6, dtype=torch.int64), torch.arange(6))
        assert queue.num_filled.device.type == "cuda"
