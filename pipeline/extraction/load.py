"""Load an extraction from the files that it is made of, here or in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.architectures import refuse_unnamed
from pipeline.config.params import load_params
from pipeline.datasets.index import Index
from pipeline.extraction.basis import Progress, in_subspace
from pipeline.extraction.job import Extraction, plan_store
from pipeline.models.teacher import TeacherCard
from pipeline.runtime.device import pick_device


@dataclass(frozen=True)
class JobFiles:
    """The files that an extraction is made of, and the device that its teacher runs on."""

    index: Path
    teacher: Path
    params: Path
    device: str

    def load(self, progress: Progress = lambda done, total: None) -> Extraction:
        """Load index, teacher and settings, and plan the store.

        Args:
            progress: of the pass that a subspace is made from, once for all its stores.
        """
        job = self.load_whole()
        if job.settings.encodings.subspace is None:
            return job
        # Beside the teacher, where workers find it.
        path = self.teacher.with_suffix(f".basis-{job.spec.fingerprint}.npy")
        return in_subspace(job, path, progress)

    def load_whole(self) -> Extraction:
        """Load the extraction of the teacher's own features, whatever the settings make of them."""
        params = load_params(self.params)
        index = Index.read(self.index)
        device = pick_device(self.device)
        card_path = self.teacher.with_suffix(".json")
        card = TeacherCard.read(card_path)
        refuse_unnamed(card.architecture, (params.teacher.architecture,), card_path)
        teacher = card.load(self.teacher, index.num_classes)
        spec = plan_store(index, params.store, teacher.to(device), card.sha256, device)
        return Extraction(index, teacher, params.store, spec, device)
