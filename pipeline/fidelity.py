"""How far what the store gives back lies from what the teacher says, in nats and in cosines."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.extraction import Extraction, draw_records, forward_teacher
from pipeline.losses.embedding import embed
from pipeline.losses.kd import kd
from pipeline.losses.similarity import similarity_kl
from pipeline.network import STRIDE
from store.reader import Reader

NUM_CONTRAST = 4096
TEMPERATURE = 0.1


def compare(
    live: tuple[Tensor, Tensor], stored: tuple[Tensor, Tensor], generator: torch.Generator
) -> dict[str, float]:
    """Figures of stored against live logits [n, K, h, w] and features [n, D, h, w].

    Returns:
        logits_kl: mean KL(softmax(live) || softmax(stored)) over pixels, nats.
        argmax_kept: fraction of pixels whose class stays.
        similarity_kl: mean KL over pixels of their similarities, at temperature 0.1, to up to 4096
            pixels drawn from these records; both sides stored, as in the mini-batch term.
        features_cosine: mean cosine of stored and live embeddings, empty pixels left out.
    """
    (live_logits, live_features), (stored_logits, stored_features) = live, stored
    everywhere = torch.ones_like(live_logits[:, 0], dtype=torch.bool)
    flat = [
        embed(features).transpose(0, 1).flatten(1).T
        for features in (live_features, stored_features)
    ]
    number = min(NUM_CONTRAST, len(flat[0]))
    drawn = torch.randperm(len(flat[0]), generator=generator)[:number]
    rows = torch.randperm(len(flat[0]), generator=generator)[:number]
    divergence = similarity_kl(
        flat[1][rows], flat[0][rows], flat[1][drawn], flat[0][drawn], temperature=TEMPERATURE
    )
    return {
        "logits_kl": kd(stored_logits, live_logits, everywhere).value.item(),
        "argmax_kept": (stored_logits.argmax(1) == live_logits.argmax(1)).float().mean().item(),
        "similarity_kl": divergence.value.item(),
        "features_cosine": _cosine(stored_features, live_features),
    }


@torch.no_grad()
def spot_check(
    job: Extraction, reader: Reader, records: Sequence[int], generator: torch.Generator
) -> dict[str, float]:
    """Run the teacher again on some records and compare; see `compare` for the figures.

    Beside them: images_equal, the fraction of records whose stored view is drawn again pixel by
    pixel; flip_cosine and crop_cosine, of flipped and of stride-aligned cropped stored features
    against the teacher on the flipped and on the cropped image, which is what augmenting stored
    records would cost.
    """
    arrays = reader.read(records, ["image", *_names(reader)])
    images = arrays["image"]
    stored = tuple(torch.from_numpy(reader.decode(name, arrays)) for name in ("logits", "features"))
    live = forward_teacher(job, images).cpu()
    drawn = draw_records(job.index, job.settings, records)["image"]
    top, left = (side // (2 * STRIDE) // 2 for side in images.shape[-2:])
    height, width = (side // (2 * STRIDE) for side in images.shape[-2:])
    window = images[
        ...,
        top * STRIDE : (top + height) * STRIDE,
        left * STRIDE : (left + width) * STRIDE,
    ].copy()
    flipped = forward_teacher(job, images[..., ::-1].copy()).features.cpu()
    cropped = forward_teacher(job, window).features.cpu()
    features = stored[1]
    return {
        "records": len(records),
        "images_equal": float((drawn == images).all(axis=(1, 2, 3)).mean()),
        **compare((live.logits, live.features), (stored[0], features), generator),
        "flip_cosine": _cosine(features.flip(-1), flipped),
        "crop_cosine": _cosine(features[..., top : top + height, left : left + width], cropped),
    }


def _cosine(stored: Tensor, live: Tensor) -> float:
    """Mean cosine over pixels where the teacher has any feature at all."""
    cosine = functional.cosine_similarity(stored, live, dim=1)
    return cosine[live.abs().amax(dim=1) > 0].mean().item()


def _names(reader: Reader) -> list[str]:
    return [*reader.map_arrays("logits").values(), *reader.map_arrays("features").values()]
