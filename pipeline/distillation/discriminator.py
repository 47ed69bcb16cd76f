"""SKD's holistic term: a discriminator that learns beside the student, by its own optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.losses.skd import Discriminator, discriminator_loss, holistic
from pipeline.ops.mean import Mean
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from pipeline.runtime.rng import seed_torch

LEARNING_RATE = 4e-4  # the CIRKD repository's, for Adam
WEIGHT = 0.1


class LearningDiscriminator:
    """A discriminator of logits; each step is first its own, then the student's.

    Args:
        num_classes: K.
        seed: of the run; names its first weights.
        device: where it lives.
        ranks: whose discriminators stay equal, for they learn from all ranks' images.
    """

    def __init__(
        self, num_classes: int, seed: int, device: torch.device, ranks: Ranks = SINGLE_PROCESS
    ) -> None:
        self._ranks = ranks
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_torch(seed, "critic")
            self._discriminator = Discriminator(num_classes).to(device)
        self._optimizer = torch.optim.Adam(self._discriminator.parameters(), lr=LEARNING_RATE)

    def step(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Mean:
        """Take one step of the discriminator, and return the student's term, -E D(z_s)."""
        with torch.autocast(valid.device.type, enabled=False):
            mean = discriminator_loss(self._discriminator, student_logits, teacher_logits, valid)
            loss = self._ranks.merge({"critic": mean})["critic"]
        self._optimizer.zero_grad(set_to_none=True)
        (WEIGHT * loss).backward()
        self._ranks.average_gradients(self._discriminator)
        self._optimizer.step()
        return holistic(self._discriminator, student_logits, valid)

    def state_dict(self) -> dict[str, Any]:
        """Discriminator and optimizer, under the names that checkpoints know."""
        return {
            "critic": self._discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._discriminator.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])
