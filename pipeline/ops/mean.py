"""A mean kept as its two sums, so that ranks and terms can be merged before the division."""

from typing import NamedTuple

from torch import Tensor


class Mean(NamedTuple):
    """A sum over counted pixels (rows, elements, ...) and how many there were.

    Attributes:
        total: 0-d floating tensor, carries the gradient.
        count: 0-d tensor, no gradient; zero where everything was masked.
    """

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # a tuple has a method of that name

    @property
    def value(self) -> Tensor:
        """The mean, `total / count`; 0 where nothing was counted."""
        return self.total / self.count.clamp_min(1)
