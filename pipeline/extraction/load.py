"""Load an extraction from the files that it is made of, here or in a worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config.architectures import refuse_unnamed
from pipeline.config.params import load_params
from pipeline.datasets.index import Index
from pipeline.extraction.basis import find_basis, pass_name, with_basis
from pipeline.extraction.job import Extraction, plan_store
from pipeline.models.teacher import TeacherCard
from pipeline.runtime.device import pick_device, pick_slots
from store.progress import Progress
from store.schema import StoreSpec


@dataclass(frozen=True)
class JobFiles:
    """The files that an extraction is made of, and the device that its teacher runs on."""

    index: Path
    teacher: Path
    params: Path
    device: str

    def load(
        self, progress: Progress = lambda done, total: None, stored: StoreSpec | None = None
    ) -> Extraction:
        """Load index, teacher and settings, and plan the store.

        Args:
            progress: of the pass that a subspace is made from; see `in_subspace`.
            stored: of a store that is there; its basis, threads and forward batch are taken.
        """
        job = self.load_whole()
        if stored is not None:
            # Which decide last bits, and are no part of a store's identity.
            known = ("threads", "forward_batch")
            update = {name: stored.provenance[name] for name in known if name in stored.provenance}
            job = replace(job, settings=job.settings.model_copy(update=update))
        if stored is not None and stored.basis:
            return with_basis(job, stored.basis_matrix)
        return self.in_subspace(job, progress)

    def dealt_to(self, worker: object) -> JobFiles:
        """Return the same files; workers that are numbered take the GPUs of a machine in turn."""
        if not isinstance(worker, int):
            return self
        slots = pick_slots(self.device)
        return replace(self, device=slots[worker % len(slots)])

    def in_subspace(self, job: Extraction, progress: Progress) -> Extraction:
        """Return the extraction with features as its settings ask for them.

        The teacher looks at some views first, once for all stores of the same views, and what it
        saw lies beside its weights, where workers find it.
        """
        subspace = job.settings.encodings.subspace
        if subspace is None:
            return job
        folder = self.teacher.with_suffix(f".views-{pass_name(job, subspace)}")
        return with_basis(job, find_basis(job, folder, progress))

    def load_whole(self) -> Extraction:
        """Load the extraction of the teacher's own features, whatever the settings make of them."""
        params = load_params(self.params)
        index = Index.read(self.index)
        device = pick_device(self.device)
        card_path = self.teacher.with_suffix(".json")
        card = TeacherCard.read(card_path)
        refuse_unnamed(card.architecture, (params.teacher.architecture,), card_path)
        teacher = card.load(self.teacher, index.class_names)
        spec = plan_store(index, params.store, teacher.to(device), card.sha256, device)
        return Extraction(index, teacher, params.store, spec, device)
