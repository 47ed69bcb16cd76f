"""Hold what a memory draws for one step, and a relational loss compares with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Contrast(NamedTuple):
    """Embeddings drawn for one step.

    Attributes:
        embeddings: [m, D], float32 whatever the storage.
        usable: bool [m], False = an unfilled slot or one of an excluded record.
        classes: int64 [m].
    """

    embeddings: Tensor
    usable: Tensor
    classes: Tensor
