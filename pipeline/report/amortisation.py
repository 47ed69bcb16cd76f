"""When a store pays: n students that share it against n with the teacher in the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OFFLINE = "offline"
FORMER_NAMES = {"live": "online", "online": "public_code"}  # of variants, in older files


@dataclass(frozen=True)
class Amortisation:
    """What one profile's extraction and students cost.

    Attributes:
        store: fingerprint of the store.
        student: the run that was measured.
        teacher_s: seconds of the teacher's training, common to all variants; 0 where it was given.
        extraction_s: seconds of the store's extraction.
        step_s: seconds of one training step, by variant: ce, offline, online, public_code.
        student_s: seconds of one student's training, by variant but ce: see `from_costs`.
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
        ratios = {variant: s / step_s[OFFLINE] for variant, s in step_s.items() if variant != "ce"}
        student_s = {variant: offline_s * ratio for variant, ratio in ratios.items()}
        return cls(store, student, teacher_s, extraction_s, dict(step_s), student_s)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Amortisation:  # JSON
        """Read what `to_dict` wrote, under the variants' former names, too."""
        found = {name: values[name] for name in cls.__dataclass_fields__}
        if "live" in found["step_s"]:
            for name in ("step_s", "student_s"):
                found[name] = {FORMER_NAMES.get(v, v): s for v, s in found[name].items()}
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:  # JSON
        """Describe it in JSON values, the break-even counts of students included."""
        return {
            **asdict(self),
            "break_even": {variant: self.break_even(variant) for variant in self.baselines},
        }

    @property
    def baselines(self) -> tuple[str, ...]:
        """Return the variants with a teacher in the loop."""
        return tuple(variant for variant in self.student_s if variant != OFFLINE)

    def total_s(self, variant: str, num_students: int) -> float:
        """Return the seconds of n students, the teacher's training left out."""
        once = self.extraction_s if variant == OFFLINE else 0.0
        return once + num_students * self.student_s[variant]

    def break_even(self, variant: str) -> int | None:
        """Find the fewest students that cost no more offline than by this variant; None: never."""
        saved = self.student_s[variant] - self.student_s[OFFLINE]
        return max(1, math.ceil(self.extraction_s / saved)) if saved > 0 else None
