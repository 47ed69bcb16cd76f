"""SKD's holistic term: a critic that learns beside the student, with an optimizer of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.losses.skd import Critic, critic_loss, holistic
from pipeline.runtime.distributed import ALONE, Ranks
from pipeline.runtime.mean import Mean
from pipeline.runtime.rng import seed_torch

LEARNING_RATE = 4e-4  # the CIRKD repository's, for Adam
WEIGHT = 0.1


class Adversary:
    """A critic of logits; each use first teaches the critic, then the student.

    Args:
        num_classes: K.
        seed: of the run; names the critic's first weights.
        device: where it lives.
        ranks: whose critics stay equal, for they learn from all ranks' images.
    """

    def __init__(
        self, num_classes: int, seed: int, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self._ranks = ranks
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_torch(seed, "critic")
            self._critic = Critic(num_classes).to(device)
        self._optimizer = torch.optim.Adam(self._critic.parameters(), lr=LEARNING_RATE)

    def teach(self, student_logits: Tensor, teacher_logits: Tensor, inside: Tensor) -> Mean:
        """Take one step of the critic, and return the student's term, -E D(z_s)."""
        with torch.autocast(inside.device.type, enabled=False):
            mean = critic_loss(self._critic, student_logits, teacher_logits, inside)
            loss = self._ranks.merge({"critic": mean})["critic"]
        self._optimizer.zero_grad(set_to_none=True)
        (WEIGHT * loss).backward()
        self._ranks.average_gradients(self._critic)
        self._optimizer.step()
        return holistic(self._critic, student_logits, inside)

    def state_dict(self) -> dict[str, Any]:
        """Critic and optimizer."""
        return {"critic": self._critic.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._critic.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])
