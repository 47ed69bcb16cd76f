"""The value of every term on a small input, worked out by hand, computed as in a training step.

L is ln 3: logits that differ by a temperature times L have easy softmaxes, as (3/4, 1/4).
Similarities are 1 or 0, and their temperature is 1 / L. Maps are one pixel high, [B][C][w].
"""

import math
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.methods import TERMS
from pipeline.config.params import DistillationConfig, Params
from pipeline.distillation import discriminator
from pipeline.distillation.components import (
    CHANNEL_PROJECTOR,
    CHANNELS,
    CONTEXT_ADAPTER,
    CWD_ADAPTER,
    DISCRIMINATOR,
    FITNET_ADAPTER,
    MEMORY,
    PROJECTOR,
    Component,
)
from pipeline.distillation.terms import COMPUTATIONS, Step
from pipeline.loading.batch import Batch, Targets
from pipeline.losses.cirkdv2 import ContextAdapter
from pipeline.models.network import Output
from pipeline.ops.contrast import Contrast

L = math.log(3)
VOID = 255
Maps = list[list[list[float]]]


@dataclass(frozen=True)
class Case:
    """The maps that a term reads, and its value.

    Attributes:
        student, teacher: logits or features, whichever the term reads; by name if it reads several.
        value: worked out by hand.
        valid: 0 = padding; default nowhere.
        labels: at the grid; default class 0 everywhere.
        components: what the term keeps beside the student.
    """

    student: Maps | dict[str, Maps]
    teacher: Maps | dict[str, Maps]
    value: float
    valid: list[list[int]] | None = None
    labels: list[list[int]] | None = None
    components: dict[Component[Any], Any] = field(default_factory=dict)


class Drawn:
    """A memory that draws the given embeddings, and one more that is not usable."""

    def __init__(self, **embeddings: list[list[float]]) -> None:
        self._embeddings = embeddings

    def sample(self, kind: str, batch: Batch) -> Contrast:
        drawn = torch.tensor([*self._embeddings[kind], [1, 1]], dtype=torch.float64)
        usable = torch.arange(len(drawn)) < len(drawn) - 1
        return Contrast(drawn, usable, torch.zeros(len(drawn), dtype=torch.int64))


class SumCritic(nn.Module):
    """D(z) = w * the sum of z over classes and pixels, w = 1 at the start."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
        return self.w * logits.sum((1, 2, 3))


def learning_critic() -> discriminator.LearningDiscriminator:
    with patch.object(discriminator, "Discriminator", SumCritic):
        return discriminator.LearningDiscriminator(2, 0, torch.device("cpu"))


def context_adapter() -> ContextAdapter:
    """Read the first of four channels alone: query and value x, key sqrt(2) L x, W = (2, 1)."""
    adapter = ContextAdapter(4, 2).double()
    for parameter in adapter.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        adapter.query.weight[0, 0] = adapter.value.weight[0, 0] = 1
        adapter.key.weight[0, 0] = math.sqrt(2) * L
        adapter.out.weight[0, 0] = 2
        adapter.adapter.weight[:, 0, 0, 0] = torch.tensor([2, 1])
    return adapter


def rolled(x: Tensor) -> Tensor:
    """Stand for a projector: the last channel becomes the first."""
    return x.roll(1, 1)


def doubled(x: Tensor) -> Tensor:
    """Stand for an adapter from one channel x to two, (x, 2x)."""
    return torch.cat((x, 2 * x), 1)


def of_cells(maps: Maps) -> Maps:
    """Spread maps of two cells over five pixels: the first four average to the first cell."""
    return [[[7 * x, -x, -2 * x, 0, y] for x, y in image] for image in maps]


# Directions of the channels: of the student, after `rolled`, (1,0) (1,0) (0,1) in both images; of
# the teacher (1,0) (0,1) (0,1) in image 0, and as the student's in image 1.
CHANNELS_STUDENT = of_cells([[[5, 0], [0, 2], [3, 0]], [[2, 0], [0, 1], [4, 0]]])
CHANNELS_TEACHER = of_cells([[[2, 0], [0, 1], [0, 4]], [[1, 0], [3, 0], [0, 1]]])

CASES: dict[str, Case] = {
    # T = 2. Pixel 0: t = (3/4, 1/4), s = (1/2, 1/2), KL = 3/4 ln 3/2 + 1/4 ln 1/2 = 3/4 L - ln 2.
    # Pixel 1: t = (1/2, 1/2), s = (1/10, 9/10), KL = 1/2 ln 5 + 1/2 ln 5/9 = ln 5 - L.
    # Image 1: logits differ by a constant, 0. The sum ln 5/2 - 1/4 L = 0.6416376597, times T^2 = 4,
    # over 3 pixels.
    "kd": Case(
        student=[[[0, 0], [0, 4 * L]], [[5, 9], [5, -9]]],
        teacher=[[[2 * L, 1], [0, 1]], [[1, 0], [1, 0]]],
        valid=[[1, 1], [1, 0]],
        value=0.8555168796,
    ),
    # Directions of the pixels: of the student (1,0) (1,0) (0,1) in both images; of the teacher
    # (1,0) (0,1) (0,1) in image 0, and as the student's in image 1. Softmaxes of a row's
    # similarities: to columns (1,0) (1,0) (0,1) a row (1,0) has (3,3,1)/7, and (0,1) has (1,1,3)/5;
    # to columns (1,0) (0,1) (0,1) they have (3,1,1)/5 and (1,3,3)/7.
    #   a = KL((3,1,1)/5 || (3,3,1)/7) = 4/5 ln 7/5 + 1/5 ln 7/15 = ln 7/5 - 1/5 L
    #   b = KL((1,3,3)/7 || (3,3,1)/7) = 1/7 ln 1/3 + 3/7 ln 3 = 2/7 L
    #   c = KL((1,3,3)/7 || (1,1,3)/5) = 4/7 ln 5/7 + 3/7 ln 15/7 = 3/7 L - ln 7/5
    #   d = KL((1,1,3)/5 || (3,3,1)/7) = 2/5 ln 7/15 + 3/5 ln 21/5 = ln 7/5 + 1/5 L
    # Pairs: (0,0) has a + b + c, (0,1) has d, (1,0) has a + a + c, (1,1) has 0.
    # 3a + b + 2c + d = 2 ln 7/5 + 26/35 L = 1.4890564591, over B^2 A = 4 * 3.
    "minibatch_pixel": Case(
        student=[[[2, 5, 0], [0, 0, 1]], [[1, 2, 0], [0, 0, 3]]],
        teacher=[[[3, 0, 0], [0, 1, 4]], [[6, 1, 0], [0, 0, 2]]],
        value=0.1240880383,
    ),
    # V = (1,0) (0,1) (0,1); the void pixel is no anchor. Directions of the anchors: of the student,
    # after `rolled`, (1,0) (1,0) (1,1), of the teacher (1,0) (0,1) (1,0). Their KL: 0;
    # (1,3,3)/7 || (3,1,1)/5, 1/7 ln 5/21 + 6/7 ln 15/7 = ln 5/7 + 5/7 L; (3,1,1)/5 || (1,1,1)/3,
    # 3/5 ln 9/5 + 2/5 ln 3/5 = ln 3/5 + 3/5 L. The sum ln 3/7 + 46/35 L = 0.5965925761, over 3.
    "memory_pixel": Case(
        student=[[[0, 0], [2, 3]], [[4, 1], [4, 0]]],
        teacher=[[[2, 0], [0, 1]], [[5, 0], [0, 1]]],
        labels=[[0, 1], [0, VOID]],
        components={
            PROJECTOR: rolled,
            MEMORY: Drawn(pixel=[[1, 0], [0, 1], [0, 1]], region=[[0, 1]]),
        },
        value=0.1988641920,
    ),
    # The same with V = (1,0) (1,0) (0,1). KL: 0; (1,1,3)/5 || (3,3,1)/7, ln 7/5 + 1/5 L;
    # (3,3,1)/7 || (1,1,1)/3, 6/7 ln 9/7 + 1/7 ln 3/7 = 6/7 L + ln 3/7.
    # The sum 37/35 L + ln 3/5 = 0.6505645100, over 3 anchors.
    "memory_region": Case(
        student=[[[0, 0], [2, 3]], [[4, 1], [4, 0]]],
        teacher=[[[2, 0], [0, 1]], [[5, 0], [0, 1]]],
        labels=[[0, 1], [0, VOID]],
        components={
            PROJECTOR: rolled,
            MEMORY: Drawn(pixel=[[0, 1]], region=[[1, 0], [1, 0], [0, 1]]),
        },
        value=0.2168548367,
    ),
    # Two cells of two pixels. Image 0: maxima (1,0) (0,2) of the student, similarity 0; (2,0) (3,4)
    # of the teacher, similarity 0.6: two of 4 pairs differ, by 0.6. Image 1: one cell, one pair,
    # similarity 1. The sum 2 * 0.36, over 5 pairs.
    "skd_pairwise": Case(
        student=[[[1, -5, 0, -1], [0, 0, -2, 2]], [[1, 2, 9, 9], [3, 4, 9, -9]]],
        teacher=[[[2, -5, 3, 1], [0, 0, 1, 4]], [[5, 5, 0, 1], [6, 6, 1, 0]]],
        valid=[[1, 1, 1, 1], [1, 1, 0, 0]],
        value=0.144,
    ),
    # Sums of the student's images 1/4 and -4, of the teacher's 3 and 1/2. The critic's hinges
    # 1 - D(t) and 1 + D(s) are open for 1/2 and 1/4: their gradient in w is (-1/2 + 1/4) / 2 < 0,
    # so Adam's first step adds its rate, w = 1.0004. Then -E D(s) = -1.0004 (1/4 - 4) / 2.
    "skd_holistic": Case(
        student=[[[0.5], [-0.25]], [[-1], [-3]]],
        teacher=[[[1], [2]], [[1.5], [-1]]],
        components={DISCRIMINATOR: learning_critic()},
        value=1.87575,
    ),
    # Image 0, one class: of the student (4,0) (0,3), mean (2, 1.5), cosines 0.8 and 0.6; the
    # teacher's pixels have one direction, cosines 1. Image 1: one pixel of its class, cosine 1.
    # The sum 0.2^2 + 0.4^2, over 3 labelled pixels.
    "ifvd": Case(
        student=[[[4, 0], [0, 3]], [[1, 5], [2, -5]]],
        teacher=[[[1, 2], [1, 2]], [[3, 0], [0, 4]]],
        labels=[[0, 0], [1, VOID]],
        value=0.0666666667,
    ),
    # T = 4, softmaxes over the pixels of a channel. Image 0: t = (3,1,1)/5, s = (1,1,1)/3,
    # KL = 3/5 ln 9/5 + 2/5 ln 3/5 = ln 3/5 + 3/5 L; t = (1,1,1)/3, s = (9,1,1)/11,
    # KL = 1/3 ln 11/27 + 2/3 ln 11/3 = ln 11 - 5/3 L. Image 1: a constant for each channel, 0.
    # The sum ln 33/5 - 16/15 L = 0.7152165411, times T^2 / (B C) = 16 / 4.
    "cwd_logits": Case(
        student=[[[0, 0, 0], [8 * L, 0, 0]], [[1, 2, 9], [3, 5, 9]]],
        teacher=[[[4 * L, 0, 0], [2, 2, 2]], [[2, 3, 0], [1, 3, 0]]],
        valid=[[1, 1, 1], [1, 1, 0]],
        value=2.8608661645,
    ),
    # T = 4. Image 0, after `doubled`: s = (3,1,1)/5 and (9,1,1)/11, t = (1,1,1)/3 and (3,1,1)/5,
    # KL = 1/3 ln 5/9 + 2/3 ln 5/3 = ln 5/3 - 1/3 L, and 3/5 ln 11/15 + 2/5 ln 11/5
    # = ln 11/5 - 3/5 L. Image 1: a constant for each channel, 0. The sum ln 11/3 - 14/15 L
    # = 0.2739115147, times T^2 / (B C) = 16 / 4, for C = 2 channels are compared.
    "cwd_features": Case(
        student=[[[4 * L, 0, 0]], [[1, 2, 9]]],
        teacher=[[[0, 0, 0], [4 * L, 0, 0]], [[2, 3, 0], [1, 3, 0]]],
        valid=[[1, 1, 1], [1, 1, 0]],
        components={CWD_ADAPTER: doubled},
        value=1.0956460588,
    ),
    # Image 0: mean squares (3, 4) of the student become (0.6, 0.8), (12.5, 0) of the teacher become
    # (1, 0). Image 1: one pixel, 1 for both. The sum 0.4^2 + 0.8^2, over 3 pixels.
    "at": Case(
        student=[[[math.sqrt(6), 2], [0, 2]], [[1, 9], [2, 9]]],
        teacher=[[[5, 0], [0, 0]], [[3, 1], [0, 1]]],
        valid=[[1, 1], [1, 0]],
        value=0.2666666667,
    ),
    # After `doubled`: (1, 2) (2, 4) in image 0, (3) (6) in image 1; differences -2, 0, 0, 3 and
    # 1, 1. The sum 4 + 9 + 1 + 1, over 2 channels of 3 pixels.
    "fitnet": Case(
        student=[[[1, 2]], [[3, 9]]],
        teacher=[[[3, 2], [2, 1]], [[2, 0], [5, 0]]],
        valid=[[1, 1], [1, 0]],
        components={FITNET_ADAPTER: doubled},
        value=2.5,
    ),
    # T = 4, two cells of two pixels. Image 0: P = (3/4, 1/4) (1/2, 1/2) of the student,
    # P P^T = (10, 8; 8, 8)/16; (3/4, 1/4) (1/4, 3/4) of the teacher, (10, 6; 6, 10)/16: three of
    # four differ by 1/8. Image 1: one cell, P = 1. The sum 3/64, over B K^2 = 8.
    "dsd_csd": Case(
        student=[[[8 * L, 0, 0, 0], [2, 0, 1, 1]], [[1, 2, 9, 9], [3, 4, 9, 9]]],
        teacher=[[[6 * L, 2 * L, 0, 0], [1, -1, 0, 8 * L]], [[5, 5, 0, 1], [6, 6, 1, 0]]],
        valid=[[1, 1, 1, 1], [1, 1, 0, 0]],
        value=0.005859375,
    ),
    # Image 0, a of auxiliary logits, features and logits: of the student (1,0) (0,1) (0.6,0.8), so
    # r = (-1,1)/sqrt 2, (-1,2)/sqrt 5, (3,-1)/sqrt 10; of the teacher (0,1) (1,0) (0.6,0.8), so
    # r = (1,-1)/sqrt 2, (3,-1)/sqrt 10, (-1,2)/sqrt 5. |r_s - r_t|^2 = 2 - 2 r_s r_t = 4,
    # 2 + sqrt 2, 2 + sqrt 2. Image 1: both are equal. The sum 8 + 2 sqrt 2, over 3 pairs of layers
    # and 4 pixels.
    "dsd_psd": Case(
        student={
            "auxiliary": [[[3, 0]], [[1, 0]]],
            "features": [[[0, 2]], [[0, 1]]],
            "logits": [[[math.sqrt(3), 2]], [[1, 1]]],
        },
        teacher={
            "auxiliary_attention": [[[0, 1]], [[1, 0]]],
            "features": [[[4, 0]], [[0, 1]]],
            "logits": [[[math.sqrt(3), 2]], [[1, 1]]],
        },
        value=0.9023689271,
    ),
    # As minibatch_pixel, with channels in the place of pixels: over B^2 D = 4 * 3.
    "channel_minibatch": Case(
        student=CHANNELS_STUDENT,
        teacher=CHANNELS_TEACHER,
        components={CHANNEL_PROJECTOR: rolled},
        value=0.1240880383,
    ),
    # V = (1,0) (0,1) (0,1). One channel differs, the middle one of image 0, as a pixel does in
    # memory_pixel: ln 5/7 + 5/7 L = 0.4482508271, over B D = 6.
    "channel_memory": Case(
        student=CHANNELS_STUDENT,
        teacher=CHANNELS_TEACHER,
        components={CHANNEL_PROJECTOR: rolled, CHANNELS: Drawn(channel=[[1, 0], [0, 1], [0, 1]])},
        value=0.0747084712,
    ),
    # Image 0, after `rolled`: (3,4) becomes (0.6, 0.8), the teacher's (0,2) becomes (0, 1); the
    # other channels agree. Image 1: one cell, 1 for both. The sum 0.6^2 + 0.2^2, over D = 2
    # channels of 3 cells.
    "channel_mse": Case(
        student=of_cells([[[1, 0], [3, 4]], [[2, 9], [5, 9]]]),
        teacher=of_cells([[[0, 2], [3, 0]], [[1, 0], [4, 0]]]),
        valid=[[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]],
        components={CHANNEL_PROJECTOR: rolled},
        value=0.0666666667,
    ),
    # The attention's logits are q k / sqrt 2 = L x x'. Image 0, x = 1, 0: weights (3/4, 1/4) and
    # (1/2, 1/2), so 3/4 and 1/2 are attended to; x plus twice that is 2.5 and 1; W makes (5, 2) and
    # (2.5, 1). Image 1: x = 2 attends to itself, 2 + 4 = 6; 12 and 6. Differences 1, -0.5, 0, -2
    # and 2, 1. The sum 10.25, over 2 channels of 3 pixels.
    "contextual_fitnet": Case(
        student=[[[1, 0], [0, 0], [0, 0], [0, 0]], [[2, 9], [0, 9], [0, 9], [0, 9]]],
        teacher=[[[4, 2.5], [2.5, 3]], [[10, 0], [5, 0]]],
        valid=[[1, 1], [1, 0]],
        components={CONTEXT_ADAPTER: context_adapter()},
        value=1.7083333333,
    ),
}


def to_maps(given: Maps | dict[str, Maps], read: str) -> dict[str, Tensor]:
    """Put maps [B, C, 1, w] at the names that a term reads, zeros of two classes at the others."""
    named = given if isinstance(given, dict) else {read: given}
    maps = {name: torch.tensor(x, dtype=torch.float64).unsqueeze(2) for name, x in named.items()}
    zeros = torch.zeros_like(maps[read][:, :1]).expand(-1, 2, -1, -1)
    return {"logits": zeros, "features": zeros, **maps}


def build_step(name: str, settings: DistillationConfig) -> Step:
    case, read = CASES[name], "logits" if "logits" in TERMS[name].needs else "features"
    student, targets = to_maps(case.student, read), to_maps(case.teacher, read)
    if "auxiliary_attention" in targets:
        targets["auxiliary_attention"] = targets["auxiliary_attention"].squeeze(1)
    grid = student["logits"][:, 0]
    valid, labels = torch.ones_like(grid, dtype=torch.bool), torch.zeros_like(grid).byte()
    if case.valid is not None:
        valid = torch.tensor(case.valid).bool().unsqueeze(1)
    if case.labels is not None:
        labels = torch.tensor(case.labels, dtype=torch.uint8).unsqueeze(1)
    batch = Batch(torch.arange(len(grid)), grid, labels, labels, valid, Targets(targets))
    output = Output(student["logits"], student["features"], student.get("auxiliary"))
    return Step(batch, output, settings, deepcopy(case.components), torch.Generator())


def test_every_term_has_a_value() -> None:
    assert CASES.keys() == TERMS.keys()


@pytest.mark.parametrize("name", CASES)
def test_hand_worked(name: str, tiny_params: Params) -> None:
    temperatures = {"temperature": 2.0, "similarity_temperature": 1 / L}
    settings = tiny_params.students["r18_cirkd"].distillation.model_copy(update=temperatures)
    value = COMPUTATIONS[name].compute(build_step(name, settings)).value
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(CASES[name].value, abs=1e-8)
