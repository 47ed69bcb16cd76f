"""When a store pays: n students that share it against n with the teacher in the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OFFLINE = "offline"


@dataclass(frozen=True)
class Amortisation:
    """What one profile's extraction and students cost.

    Attributes:
        store: fingerprint of the store.
        student: the run that was measured.
        teacher_s: seconds of the teacher's training, common to every way; 0 where it was given.
        extraction_s: seconds of the store's extraction.
        step_s: seconds of one training step, by way: labels alone (ce), offline, live, online.
        student_s: seconds of one student's training, by way but ce: see `from_costs`.
    """

    store: str
    student: str
    teacher_s: float
    extraction_s: float
    step_s: Mapping[str, float]
    student_s: Mapping[str, float]

    @classmethod
    def from_costs(
        cls,
        store: str,
        student: str,
        *,
        teacher_s: float,
        extraction_s: float,
        offline_s: float,
        step_s: Mapping[str, float],
    ) -> Amortisation:
        """Scale the seconds of a finished student by the ratios of steps measured side by side."""
        ratios = {way: s / step_s[OFFLINE] for way, s in step_s.items() if way != "ce"}
        student_s = {way: offline_s * ratio for way, ratio in ratios.items()}
        return cls(store, student, teacher_s, extraction_s, dict(step_s), student_s)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Amortisation:
        """Read what `to_dict` wrote."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def to_dict(self) -> dict[str, Any]:
        """Describe it in JSON values, the break-even counts of students included."""
        return {
            **asdict(self),
            "break_even": {way: self.break_even(way) for way in self.rivals},
        }

    @property
    def rivals(self) -> tuple[str, ...]:
        """The ways with a teacher in the loop."""
        return tuple(way for way in self.student_s if way != OFFLINE)

    def total_s(self, way: str, num_students: int) -> float:
        """Seconds of n students, the teacher's training left out."""
        once = self.extraction_s if way == OFFLINE else 0.0
        return once + num_students * self.student_s[way]

    def break_even(self, way: str) -> int | None:
        """The fewest students that cost no more offline than this way; None: no number of them."""
        saved = self.student_s[way] - self.student_s[OFFLINE]
        return max(1, math.ceil(self.extraction_s / saved)) if saved > 0 else None
