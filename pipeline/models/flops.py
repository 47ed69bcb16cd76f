"""Operations of a network's passes: torch's counter, with one of its counts put right."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.network import Network


def count_forward_flops(network: Network, height: int, width: int) -> int:
    """Count the operations of predicting one image; a multiplication and an addition are two.

    Args:
        network: left as it is.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    bare = copy.deepcopy(network).eval()
    bare.drop_auxiliary()
    image = torch.zeros(1, 3, height, width, device=next(bare.parameters()).device)
    with torch.no_grad(), flop_counter() as counter:
        bare(image)
    return int(counter.get_total_flops())


def flop_counter() -> FlopCounterMode:
    """Return a counter of the operations of all that is run inside it, backward passes included."""
    counted = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    return FlopCounterMode(display=False, custom_mapping=counted)


def _convolution_backward_flops(
    grad_out: Sequence[int], image: Sequence[int], weight: Sequence[int], *options: Any, **_: object
) -> int:  # Any: sizes, flags and numbers, of which the last three flags are read
    """Count a product as large as the forward one for each gradient that is asked for.

    torch's own count takes the weight gradient of a grouped convolution for that of a whole one.
    """
    wants_image, wants_weight, _bias = options[-1]
    return 2 * math.prod(grad_out) * math.prod(weight[1:]) * (int(wants_image) + int(wants_weight))
