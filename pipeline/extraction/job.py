"""What an extraction is made of, and the store that it leads to."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline.config.params import StoreConfig
from pipeline.datasets.index import Index
from pipeline.extraction.subspace_network import SubspaceNetwork
from pipeline.models.network import Network
from pipeline.runtime.environment import describe_device, versions
from store.arrays import TARGETS
from store.encodings.registry import find_encoding
from store.schema import SCHEMA_VERSION, StoreSpec

EXTRACTION_VERSION = 1
"""Raise it with every change of code that changes what is stored: views, targets, preprocessing.

Part of the identity from 2 on, so that stores of version 1 keep their fingerprints.
"""


def plan_store(
    index: Index, settings: StoreConfig, teacher: Network, sha256: str, device: torch.device
) -> StoreSpec:
    """Plan the sizes and the identity of the store that these settings and this teacher lead to.

    Args:
        index: of the dataset.
        settings: of the store.
        teacher: whose stride and features the store has.
        sha256: of its weights.
        device: of the extraction; recorded.

    Raises:
        ValueError: the views have no whole number of the teacher's cells.
    """
    crop, encodings = settings.crop, settings.encodings
    teacher.check_size(crop.height, crop.width, "store.crop")
    identity: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "dataset": index.fingerprint,
        "teacher": {
            "architecture": teacher.architecture,
            "sha256": sha256,
            "preprocessing": {**teacher.preprocessing.describe(), "stride": teacher.stride},
        },
        **settings.identity,
        "precision": settings.precision,
        "unit_size": settings.unit_size,
    }
    basis = b""
    if isinstance(teacher, SubspaceNetwork):
        basis = teacher.basis.cpu().numpy().astype("<f4").tobytes()
        identity["teacher"]["basis"] = hashlib.sha256(basis).hexdigest()
    if teacher.code:
        identity["teacher"]["code"] = dict(teacher.code)
    if settings.targets != TARGETS:
        # Only then, so that stores from before there was a choice keep their names.
        identity["targets"] = list(settings.targets)
    if EXTRACTION_VERSION > 1:
        identity["extraction_version"] = EXTRACTION_VERSION
    return StoreSpec(
        identity=identity,
        num_images=len(index.extracted),
        num_views=settings.num_views,
        height=crop.height,
        width=crop.width,
        num_classes=index.num_classes,
        feature_channels=teacher.feature_channels,
        feature_height=crop.height // teacher.stride,
        feature_width=crop.width // teacher.stride,
        stride=teacher.stride,
        sample_slots=settings.samples_per_class * index.most_classes,
        unit_size=settings.unit_size,
        targets=settings.targets,
        logits_encoding=find_encoding(encodings.logits),
        features_encoding=find_encoding(encodings.stored_features),
        class_names=tuple(index.class_names),
        basis=base64.b64encode(basis).decode(),
        provenance=_provenance(index, settings, device),
    )


def _provenance(index: Index, settings: StoreConfig, device: torch.device) -> dict[str, Any]:
    """Recorded, never part of the fingerprint: an upgrade must not orphan a store."""
    return {
        "device": describe_device(device, settings.threads),
        "threads": settings.threads,
        "forward_batch": settings.forward_batch,
        "versions": versions(),
        "palette": [list(colour) for colour in index.palette],
        "label_ids": list(index.classes.label_ids),
    }


@dataclass(frozen=True)
class Extraction:
    """Everything that decides what a store will hold.

    Attributes:
        index: of the dataset; its training images, and those without labels, are extracted.
        teacher: in eval mode, on `device`.
        settings: of the store.
        spec: what `plan_store` made of them.
        device: of the teacher.
    """

    index: Index
    teacher: Network
    settings: StoreConfig
    spec: StoreSpec
    device: torch.device

    @property
    def whole_teacher(self) -> Network:
        """Return the teacher with its own features, also where coordinates of them are stored."""
        return self.teacher.network if isinstance(self.teacher, SubspaceNetwork) else self.teacher

    def replan(self, settings: StoreConfig, index: Index | None = None) -> Extraction:
        """Return the same extraction with other settings of the store, or of other images."""
        index, sha256 = index or self.index, self.spec.identity["teacher"]["sha256"]
        spec = plan_store(index, settings, self.teacher, sha256, self.device)
        return replace(self, index=index, settings=settings, spec=spec)
