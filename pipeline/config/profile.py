"""Profiles: parameters in which one entry of `students` may stand for many runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

LISTS = {"architectures": "architecture", "methods": "method", "seeds": "seed"}
"""Keys of an entry that hold a list, and the key of a run that holds one value of it."""


def expand_students(students: Mapping[str, Any]) -> dict[str, Any]:  # not checked yet
    """Write out every run that an entry with lists stands for, one for each combination.

    `r18: {methods: [ce, cirkd], seeds: [0]}` stands for `r18_ce_0` and `r18_cirkd_0`: DVC knows a
    run by its name.

    Raises:
        ValueError: two entries lead to runs of one name, or one has both a list and its one value.
    """
    runs: dict[str, Any] = {}
    for name, student in students.items():
        for run, one in _runs(name, student):
            if run in runs:
                raise ValueError(f"students.{name}: a second run {run}; rename one of the entries")
            runs[run] = one
    return runs


def _runs(name: str, student: Any) -> Iterator[tuple[str, Any]]:  # not checked yet
    if not isinstance(student, Mapping):
        yield name, student
        return
    lists = [key for key in LISTS if isinstance(student.get(key), list)]
    for key in lists:
        if LISTS[key] in student:
            raise ValueError(f"students.{name}: give either {LISTS[key]} or {key}")
    shared = {key: value for key, value in student.items() if key not in lists}
    for values in product(*(student[key] for key in lists)):
        own = {LISTS[key]: value for key, value in zip(lists, values, strict=True)}
        yield "_".join([name, *map(str, values)]), {**shared, **own}
