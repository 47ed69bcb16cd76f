import pickle

import pytest

from store import errors


def test_a_message_has_its_four_parts() -> None:
    error = errors.StoreMismatchError("another store", "stores/x", "aa", "bb", "look again")
    assert str(error).splitlines() == [
        "another store: stores/x",
        "  expected: aa",
        "  found: bb",
        "  what to do: look again",
    ]


def test_parts_that_do_not_apply_are_left_out() -> None:
    assert str(errors.StoreError("no store", found=0)) == "no store\n  found: 0"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.StoreNotFoundError, FileNotFoundError),
        (errors.StoreMismatchError, ValueError),
        (errors.StoreLockedError, BlockingIOError),
        (errors.StoreWriteError, OSError),
        (errors.StoreDamagedError, errors.StoreError),
        (errors.StoreIncompleteError, errors.StoreError),
    ],
)
def test_errors_are_the_builtin_a_caller_expects_and_travel_between_processes(
    kind: type[errors.StoreError], builtin: type[Exception]
) -> None:
    error = kind("what", "where", 1, 2, "remedy")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, builtin)
    assert (type(copy), copy.parts, str(copy)) == (kind, error.parts, str(error))
    # torch's DataLoader raises a worker's error anew from its message alone.
    assert "what: where" in str(kind(str(error)))
