"""The basis of the subspace that a teacher's embeddings fill, from a first pass over some views."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Subspace
from pipeline.datasets.views import grid_valid
from pipeline.extraction.job import Extraction, plan_store
from pipeline.extraction.records import draw_records
from pipeline.extraction.subspace_network import SubspaceNetwork
from pipeline.extraction.targets import forward_teacher
from pipeline.ops.embedding import embed
from pipeline.ops.similarity_kl import similarity_kl
from pipeline.ops.tiling import slices
from pipeline.runtime.rng import seed_sequence
from store.encodings.registry import find_encoding
from store.files import reading, replacing
from store.lock import Lock
from store.progress import Progress
from store.schema import canonical_json

NUM_JUDGED = 4096
"""Embeddings by which a rank is judged, of views that the basis was not made from."""
TEMPERATURE = 0.1
RANK_STEP = 8
_ROWS_AT_ONCE = 2**16


def with_basis(job: Extraction, basis: np.ndarray) -> Extraction:
    """Return the extraction whose features are coordinates: B^T x of the teacher's own features x.

    Args:
        job: of the teacher's own features.
        basis: B float32 [D, r], orthonormal columns.

    Raises:
        ValueError: the teacher has other channels.
    """
    if len(basis) != job.spec.feature_channels:
        raise ValueError(
            f"a basis of {len(basis)} channels; the features of {job.teacher.architecture} have "
            f"{job.spec.feature_channels}: give the teacher that the store was made with"
        )
    matrix = torch.tensor(basis)
    teacher = SubspaceNetwork(job.teacher, matrix).to(job.device).eval()
    sha256 = job.spec.identity["teacher"]["sha256"]
    spec = plan_store(job.index, job.settings, teacher, sha256, job.device)
    return replace(job, teacher=teacher, spec=spec)


def find_basis(job: Extraction, folder: Path, progress: Progress) -> np.ndarray:
    """Return the basis [D, r] that an extraction's settings ask for, made once.

    Args:
        job: of the teacher's own features; its settings ask for a subspace.
        folder: of the bases of this teacher and these views, and of what the first pass saw.
        progress: called with (views that the teacher has seen, views it is to see).

    Raises:
        ValueError: no rank is small enough, or large enough.
    """
    subspace, channels = job.settings.encodings.subspace, job.spec.feature_channels
    assert subspace is not None
    if subspace.rank is not None and subspace.rank > channels:
        raise ValueError(
            f"store.encodings.features.rank: expected at most {channels}, the channels of the "
            f"teacher's features; found {subspace.rank}"
        )
    measure = f"rank-{subspace.rank}" if subspace.rank else f"max-kl-{subspace.max_kl:g}"
    path = folder / f"{measure}.npy"
    with Lock(folder, wait=True):
        if path.exists():
            with reading(path, "a basis", "remove it; the next extraction makes it again"):
                return np.asarray(np.load(path))
        seen = first_pass(job, subspace.fit_views, folder / "seen.npz", progress)
        basis = _choose(subspace, *seen)
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, basis)
    return basis


def pass_name(job: Extraction, subspace: Subspace) -> str:
    """Name all that decides what a first pass sees and adds up, in 12 hexadecimal digits."""
    identity = job.spec.identity
    decides = {key: identity[key] for key in ("dataset", "teacher", "views", "precision")}
    decides |= {"unit_size": job.settings.unit_size, "fit_views": subspace.fit_views}
    decides |= {"forward_batch": job.settings.forward_batch}
    return hashlib.sha256(canonical_json(decides).encode()).hexdigest()[:12]


@dataclass
class _Seen:
    """What a first pass has gathered.

    Attributes:
        views: how many the teacher has seen.
        moment: sum of f f^T over the embeddings f of the first three quarters, float64 [D, D].
        judged: embeddings of the other views, float32 [n, D].
    """

    views: int
    moment: np.ndarray
    judged: np.ndarray


def first_pass(
    job: Extraction, num_views: int, file: Path | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Run the teacher over random views; a pass that was stopped goes on at the next unit.

    Args:
        job: of the teacher's own features.
        num_views: how many, drawn from the seed of the store.
        file: keeps what was seen so far; None keeps nothing.
        progress: called with (views seen, views to see).

    Returns:
        The second moment of its embeddings, float64 [D, D], and others to judge by, [n, D].
    """
    spec, channels = job.spec, job.spec.feature_channels
    rng = np.random.default_rng(seed_sequence(job.settings.seed, "basis"))
    records = rng.permutation(spec.num_records)[:num_views]
    num_fitted = max(1, len(records) * 3 // 4)
    fitted, judged = records[:num_fitted], records[num_fitted:]
    seen = _Seen(0, np.zeros((channels, channels)), np.empty((0, channels), np.float32))
    if file is not None and file.exists():
        with reading(file, "a first pass", "remove it"), np.load(file) as saved:
            seen = _Seen(int(saved["views"]), saved["moment"], saved["judged"])
    progress(seen.views, len(records))
    parts = [
        records[rows]
        for records in (fitted, judged)
        for rows in slices(len(records), spec.unit_size)
    ]
    done = 0
    for part in parts:
        done += len(part)
        if done <= seen.views:
            continue
        with _threads(job.settings.threads):
            embeddings = _embeddings(job, part)
            if done <= num_fitted:
                seen.moment += _moment(embeddings).numpy()
        if done > num_fitted:
            draw = np.random.default_rng(seed_sequence(job.settings.seed, "basis", done))
            per_view = -(-NUM_JUDGED // len(judged))
            drawn = draw.permutation(len(embeddings))[: per_view * len(part)]
            seen.judged = np.concatenate([seen.judged, embeddings[drawn].numpy()])
        seen.views = done
        if file is not None:
            with replacing(file) as partial, partial.open("wb") as opened:
                np.savez(opened, **vars(seen))
        progress(done, len(records))
    return seen.moment, seen.judged


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with a number of threads of torch, whatever the number around."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _moment(embeddings: Tensor) -> Tensor:
    total = torch.zeros(embeddings.shape[1], embeddings.shape[1], dtype=torch.float64)
    for rows in slices(len(embeddings), _ROWS_AT_ONCE):
        wide = embeddings[rows].double()
        total.addmm_(wide.mT, wide)
    return total


def _embeddings(job: Extraction, records: np.ndarray) -> Tensor:
    """Return the teacher's embeddings of all pixels of some views that are no padding, [n, D]."""
    arrays = draw_records(job.index, job.settings, records.tolist())
    outputs = forward_teacher(job, arrays["image"]).cpu()
    valid = torch.from_numpy(grid_valid(arrays, job.spec.stride))
    return outputs.embeddings.permute(0, 2, 3, 1)[valid]


def _choose(subspace: Subspace, moment: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Return the basis float32 [D, r]: the leading eigenvectors of the second moment."""
    channels, vectors = len(moment), leading(moment)
    if subspace.rank is not None:
        return np.ascontiguousarray(vectors[:, : subspace.rank])
    assert subspace.max_kl is not None
    divergence = float("inf")
    for rank in [*range(RANK_STEP, channels, RANK_STEP), channels]:
        divergence = similarity_loss(vectors[:, :rank], judged)
        if divergence <= subspace.max_kl:
            return np.ascontiguousarray(vectors[:, :rank])
    raise ValueError(
        f"store.encodings.features.max_kl: similarities diverge by {divergence:.1e} nats with all "
        f"{channels} channels; expected no more than {subspace.max_kl:g}: raise it, or take "
        "another encoding"
    )


def leading(moment: np.ndarray) -> np.ndarray:
    """Return the eigenvectors of a second moment, the most important first, float32 [D, D]."""
    vectors = np.linalg.eigh(moment)[1][:, ::-1]
    # An eigenvector's sign is free: its largest component is positive.
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(moment))])
    return np.asarray(vectors * signs, "<f4")


def similarity_loss(basis: np.ndarray, embeddings: np.ndarray, encode: bool = True) -> float:
    """Return how far similarities diverge through a basis [D, r] and its encoding, mean KL, nats.

    Args:
        basis: orthonormal columns.
        embeddings: float32 [n, D]; one half is compared with the other.
        encode: whether the encoding counts, too.
    """
    coordinates = (embeddings @ basis)[:, :, None, None]
    if encode:
        encoding = find_encoding("int8_per_pixel")
        coordinates = encoding.decode(encoding.encode(coordinates))
    kept, whole = embed(torch.from_numpy(coordinates)).flatten(1), torch.from_numpy(embeddings)
    rows, contrast = slice(0, None, 2), slice(1, None, 2)
    divergence = similarity_kl(
        kept[rows], whole[rows], kept[contrast], whole[contrast], temperature=TEMPERATURE
    )
    return divergence.value.item()
