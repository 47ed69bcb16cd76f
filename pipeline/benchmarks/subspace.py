"""What a subspace of each rank loses of a teacher's similarities, and how small it is."""

from __future__ import annotations

import numpy as np

from pipeline.extraction.basis import first_pass, leading, similarity_loss
from pipeline.extraction.job import Extraction
from store.progress import Progress

RANKS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
_SCALE_BYTES = 4  # of a pixel, float32


def benchmark(job: Extraction, num_views: int, progress: Progress) -> dict[str, object]:
    """Judge every rank up to the teacher's channels, on views that the basis was not made from.

    Args:
        job: of a store; its teacher's own features are looked at.
        num_views: that the teacher sees.
        progress: called with (views seen, views to see).

    Returns:
        channels; effective_rank, exp of the entropy of the second moment's eigenvalues; by rank:
        similarity_kl in float32 and stored (int8 a pixel), mean nats at temperature 0.1; cosine,
        mean, of embeddings with their projections; bytes of features over float16's, uncompressed.
    """
    moment, judged = first_pass(job, num_views, None, progress)
    vectors, channels = leading(moment), len(moment)
    values = np.linalg.eigvalsh(moment).clip(1e-30)
    share = values / values.sum()
    return {
        "channels": channels,
        "effective_rank": float(np.exp(-(share * np.log(share)).sum())),
        "ranks": {
            rank: {
                "similarity_kl": similarity_loss(vectors[:, :rank], judged, encode=False),
                "stored_similarity_kl": similarity_loss(vectors[:, :rank], judged),
                "cosine": float(np.linalg.norm(judged @ vectors[:, :rank], axis=1).mean()),
                "bytes": (rank + _SCALE_BYTES) / (2 * channels),
            }
            for rank in sorted({*(rank for rank in RANKS if rank < channels), channels})
        },
    }
