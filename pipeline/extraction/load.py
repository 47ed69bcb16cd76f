"""Load an extraction from the files that it is made of, here or in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.datasets.index import Index
from pipeline.extraction.job import Extraction, plan_store
from pipeline.models.teacher import TeacherCard, load_teacher
from pipeline.runtime.device import pick_device


@dataclass(frozen=True)
class JobFiles:
    """Where an extraction comes from; called, it loads it, here or in a worker."""

    index: Path
    teacher: Path
    params: Path
    device: str

    def __call__(self) -> Extraction:
        """Load index, teacher and settings, and plan the store."""
        settings = load_params(self.params).store
        index = Index.read(self.index)
        place = pick_device(self.device)
        teacher = load_teacher(self.teacher, index.num_classes).to(place)
        sha256 = TeacherCard.read(self.teacher.with_suffix(".json")).sha256
        spec = plan_store(index, settings, sha256, place)
        return Extraction(index, teacher, settings, spec, place)
