"""How far what the store gives back lies from the teacher's outputs, in nats and in cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.extraction.job import Extraction
from pipeline.extraction.records import draw_records
from pipeline.extraction.targets import forward_teacher
from pipeline.losses.kd import kd
from pipeline.ops.embedding import embed
from pipeline.ops.similarity_kl import similarity_kl
from pipeline.ops.subspace import basis_tensor, lift
from pipeline.runtime.rng import seed_sequence, torch_generator
from store.errors import StoreMismatchError
from store.progress import Progress
from store.reader import Reader

NUM_CONTRAST = 4096
TEMPERATURE = 0.1


def compare(
    online: tuple[Tensor, Tensor], stored: tuple[Tensor, Tensor], generator: torch.Generator
) -> dict[str, float]:
    """Compare stored with online logits [n, K, h, w] and features [n, D, h, w].

    Returns:
        logits_kl: mean KL(softmax(online) || softmax(stored)) over pixels, nats.
        argmax_kept: fraction of pixels whose class stays.
        similarity_kl: mean KL over pixels of their similarities, at temperature 0.1, to up to 4096
            pixels drawn from these records; both sides stored, as in the mini-batch term.
        features_cosine: mean cosine of stored and online embeddings, empty pixels left out.
    """
    return {
        **compare_logits(online[0], stored[0]),
        **compare_features(online[1], stored[1], generator),
    }


def compare_logits(online: Tensor, stored: Tensor) -> dict[str, float]:
    """Return the figures of `compare` that are of logits [n, K, h, w]."""
    everywhere = torch.ones_like(online[:, 0], dtype=torch.bool)
    return {
        "logits_kl": kd(stored, online, everywhere).value.item(),
        "argmax_kept": (stored.argmax(1) == online.argmax(1)).float().mean().item(),
    }


def compare_features(
    online: Tensor, stored: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Return the figures of `compare` that are of features [n, D, h, w]."""
    flat = [embed(features).transpose(0, 1).flatten(1).T for features in (online, stored)]
    number = min(NUM_CONTRAST, len(flat[0]))
    drawn = torch.randperm(len(flat[0]), generator=generator)[:number]
    rows = torch.randperm(len(flat[0]), generator=generator)[:number]
    divergence = similarity_kl(
        flat[1][rows], flat[0][rows], flat[1][drawn], flat[0][drawn], temperature=TEMPERATURE
    )
    return {
        "similarity_kl": divergence.value.item(),
        "features_cosine": _cosine(stored, online),
    }


@torch.no_grad()
def spot_check(
    job: Extraction,
    reader: Reader,
    records: Sequence[int],
    generator: torch.Generator,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """Run the teacher again on some records and compare; see `compare` for the figures.

    Beside them: images_equal, the fraction of records whose stored view is drawn again pixel by
    pixel; flip_cosine and crop_cosine, of flipped and of stride-aligned cropped stored features
    against the teacher on the flipped and on the cropped image, which is what augmenting stored
    records would cost. Figures of targets that the store lacks are left out. `progress` is called
    with (passes of the teacher done, in all).
    """
    maps = [name for name in ("logits", "features") if name in reader.spec.targets]
    names = [array for name in maps for array in reader.map_arrays(name).values()]
    arrays = reader.read(records, ["image", *names])
    stored = {name: torch.from_numpy(reader.decode(name, arrays)) for name in maps}
    if "features" in stored:
        # What a subspace loses counts, too.
        basis = basis_tensor(reader.spec, stored["features"].device)
        stored["features"] = lift(stored["features"], basis)
    job = replace(job, teacher=job.whole_teacher)
    images = arrays["image"]
    num_passes = 3 if "features" in stored else 1
    progress(0, num_passes)
    online = forward_teacher(job, images).cpu()
    progress(1, num_passes)
    drawn = draw_records(job.index, job.settings, records)["image"]
    figures = {
        "records": len(records),
        "images_equal": float((drawn == images).all(axis=(1, 2, 3)).mean()),
    }
    if "logits" in stored:
        figures |= compare_logits(online.logits, stored["logits"])
    if "features" in stored:
        figures |= compare_features(online.features, stored["features"], generator)
        figures |= _compare_augmented(job, images, stored["features"])
        progress(num_passes, num_passes)
    return figures


def spot_check_store(
    job: Extraction, reader: Reader, num_spots: int, progress: Progress = lambda done, total: None
) -> dict[str, float]:
    """Run the teacher again on some records, drawn from the store's own seed: `spot_check`.

    Raises:
        StoreMismatchError: the job leads to another store.
    """
    if job.spec.fingerprint != reader.spec.fingerprint:
        raise StoreMismatchError(
            "another store",
            where=str(reader.path),
            expected=job.spec.fingerprint,
            found=reader.spec.fingerprint,
            hint="give the params, teacher and index that the store was made with",
        )
    rng = np.random.default_rng(seed_sequence(job.settings.seed, "spot"))
    records = rng.choice(len(reader), min(num_spots, len(reader)), replace=False)
    generator = torch_generator(job.settings.seed, "spot")
    return spot_check(job, reader, sorted(records.tolist()), generator, progress)


def _compare_augmented(job: Extraction, images: np.ndarray, stored: Tensor) -> dict[str, float]:
    """Stored features flipped and cropped against the teacher on flipped and cropped images."""
    stride = job.teacher.stride
    top, left = (side // (2 * stride) // 2 for side in images.shape[-2:])
    height, width = (side // (2 * stride) for side in images.shape[-2:])
    window = images[
        ...,
        top * stride : (top + height) * stride,
        left * stride : (left + width) * stride,
    ].copy()
    flipped = forward_teacher(job, images[..., ::-1].copy()).features.cpu()
    cropped = forward_teacher(job, window).features.cpu()
    return {
        "flip_cosine": _cosine(stored.flip(-1), flipped),
        "crop_cosine": _cosine(stored[..., top : top + height, left : left + width], cropped),
    }


def _cosine(stored: Tensor, online: Tensor) -> float:
    """Mean cosine over pixels where the teacher has any feature at all."""
    cosine = functional.cosine_similarity(stored, online, dim=1)
    return cosine[online.abs().amax(dim=1) > 0].mean().item()
