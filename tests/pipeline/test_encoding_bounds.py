"""What an encoding may cost a term: derived from its `max_error`, and held for every encoding.

The chain, each link a function here. A decoded map lies within `max_error` of the teacher's; so its
embeddings lie within `embedding_error`; so similarities shift by the sum of two of them; and
logits, or similarities, that shift so far change a KL by `change_of_kl` at most. (An encoding that
bounds a divergence instead goes through `change_by_divergence`.)
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.losses import cirkd, kd
from pipeline.ops.contrast import Contrast
from pipeline.ops.embedding import pixel_embeddings
from pipeline.ops.mean import Mean
from pipeline.runtime.rng import torch_generator
from store.encodings.base import Encoding
from store.encodings.registry import ENCODINGS

K, D, TAU = 19, 256, 0.1
LOGITS = ("float32", "float16", "int8_per_channel", "uint8_affine", "top_3", "top_5", "top_8")
FEATURES = (
    "float32",
    "float16",
    "uint8_per_pixel",
    "int8_per_pixel",
    "uint8_per_channel",
    "int8_per_channel",
    "uint8_affine",
    "uint4_per_channel",
)
ROUNDING = 1e-6
"""Of the float32 terms themselves, in nats."""


def change_of_kl(teacher: Tensor, student: Tensor, shift: Tensor) -> Tensor:
    """Bound |KL(p' || q) - KL(p || q)| where the teacher's logits shift by at most `shift`.

    With p = softmax(teacher), q = softmax(student), g = log p - log q,

        KL(p' || q) - KL(p || q) = KL(p' || p) + sum_c (p'_c - p_c) g_c.

    Be e = shift. KL(p' || p) is the log of a mean of exp(d - mean d) with d in a range of 2e: at
    most e^2 / 2 (Hoeffding's lemma). r = p' / p has mean 1 under p and max r <= exp(2e) min r, so
    its variance is at most (exp(e) - 1) (1 - exp(-e)) = (2 sinh(e/2))^2 (Bhatia and Davis), and the
    sum, a covariance of r and g, at most 2 sinh(e/2) times the deviation of g under p.

    Args:
        teacher, student: [..., C], already divided by their temperature.
        shift: [...], of the same.
    """
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    p, g = log_p.exp(), log_p - log_q
    deviation = (p * (g - (p * g).sum(-1, keepdim=True)).square()).sum(-1).sqrt()
    return shift.square() / 2 + 2 * (shift / 2).sinh() * deviation


def change_by_divergence(stored: Tensor, student: Tensor, divergence: Tensor) -> Tensor:
    """Bound |KL(p || q) - KL(p' || q)| where KL(p || p') is at most `divergence`.

    With g = log p' - log q, the difference is KL(p || p') + sum_c (p_c - p'_c) g_c. The weights sum
    to 0, so the sum is at most |p - p'|_1 span(g) / 2, and |p - p'|_1 at most sqrt(2 KL(p || p'))
    (Pinsker's inequality).

    Args:
        stored, student: logits [..., C] of p' and q.
        divergence: [...], nats.
    """
    g = stored.log_softmax(-1) - student.log_softmax(-1)
    return divergence + (2 * divergence).sqrt() * (g.amax(-1) - g.amin(-1)) / 2


def embedding_error(features: Tensor, error: Tensor) -> Tensor:
    """Bound |f' - f| of the embeddings of features F [B, D, h, w] that move by at most `error`.

    |f' - f| <= 2 |F' - F| / (|F'| + |F|) (Dunkl and Williams), |F' - F| <= E = |error|, and
    |F'| >= |F| - E. Two unit vectors are never further apart than 2.

    Returns:
        [B, h*w].
    """
    moved, norm = torch.linalg.vector_norm(error, dim=1), torch.linalg.vector_norm(features, dim=1)
    return torch.where(moved < norm, 2 * moved / (2 * norm - moved), 2.0).flatten(1)


def kd_bound(
    student: Tensor, teacher: Tensor, stored: Tensor, encoding: Encoding, temperature: float
) -> Tensor:
    """Bound the change of KD for maps [B, K, h, w], all inside: T^2 times the mean over pixels."""
    error = max_error(encoding, teacher)
    rows = [pixels(x) / temperature for x in (teacher, stored, student)]
    if encoding.measure == "kl":
        assert temperature == 1, "the encoding bounds the divergence at temperature 1"
        return change_by_divergence(rows[1], rows[2], pixels(error).squeeze(-1)).mean()
    change = change_of_kl(rows[0], rows[2], pixels(error).amax(-1) / temperature)
    return temperature**2 * change.mean()


def similarity_bound(
    student: Tensor,
    teacher: Tensor,
    student_contrast: Tensor,
    teacher_contrast: Tensor,
    shift: Tensor,
) -> Tensor:
    """Bound the change of a similarity KL: rows [n, D], one set [m, D], shift [n] of products."""
    logits = [
        rows @ v.mT / TAU for rows, v in ((teacher, teacher_contrast), (student, student_contrast))
    ]
    return change_of_kl(*logits, shift / TAU).mean()


def max_error(encoding: Encoding, x: Tensor) -> Tensor:
    error = torch.from_numpy(np.asarray(encoding.max_error(x.numpy()), np.float64))
    return error if encoding.measure == "kl" else error.expand(x.shape)


def pixels(x: Tensor) -> Tensor:
    """[B, C, h, w] to float64 [B, h, w, C]."""
    return x.double().movedim(1, -1)


def store(encoding: Encoding, x: Tensor) -> Tensor:
    """What comes back of a map."""
    return torch.from_numpy(np.asarray(encoding.decode(encoding.encode(x.numpy())), np.float32))


def draw(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_generator(0, name))


def change(term: Callable[[Tensor], Mean], teacher: Tensor, stored: Tensor) -> tuple[float, float]:
    """The live term, and how far it moves."""
    online = term(teacher).value.item()
    return online, abs(term(stored).value.item() - online)


INSIDE = torch.ones(2, 8, 8, dtype=torch.bool)


def test_every_encoding_is_held() -> None:
    assert {*LOGITS, *FEATURES} == set(ENCODINGS)


@pytest.mark.parametrize(
    ("name", "temperature"),
    [(name, 1.0) for name in LOGITS] + [(name, 2.0) for name in LOGITS if name[:3] != "top"],
)
def test_kd_moves_within_its_bound(name: str, temperature: float) -> None:
    encoding = ENCODINGS[name].bind(K)
    student, teacher = 2 * draw("student", 2, K, 8, 8), 3 * draw("teacher", 2, K, 8, 8)
    stored = store(encoding, teacher)
    bound = kd_bound(student, teacher, stored, encoding, temperature).item()
    online, moved = change(lambda x: kd.kd(student, x, INSIDE, temperature), teacher, stored)
    assert moved <= bound + ROUNDING
    assert bound < online
    assert (moved > bound / 10_000) == (name != "float32")


@pytest.mark.parametrize("name", FEATURES)
def test_embeddings_move_within_their_bound(name: str) -> None:
    encoding = ENCODINGS[name].bind(D)
    teacher = draw("teacher", 2, D, 8, 8).relu()
    bound = embedding_error(teacher.double(), max_error(encoding, teacher))
    moved = pixel_embeddings(store(encoding, teacher).double()) - pixel_embeddings(teacher.double())
    moved = torch.linalg.vector_norm(moved, dim=-1)
    assert (moved <= bound).all()
    assert (moved >= bound / 4).all()


@pytest.mark.parametrize("name", FEATURES)
def test_minibatch_term_moves_within_its_bound(name: str) -> None:
    encoding = ENCODINGS[name].bind(D)
    student, teacher = draw("student", 2, 64, 8, 8).relu(), draw("teacher", 2, D, 8, 8).relu()
    error = embedding_error(teacher.double(), max_error(encoding, teacher))
    s, t = (pixel_embeddings(x.double()) for x in (student, teacher))
    # Rows and columns are stored: <f', v'> - <f, v> = <f' - f, v'> + <f, v' - v>.
    bound = torch.stack(
        [
            similarity_bound(s[i], t[i], s[j], t[j], error[i] + error[j].max())
            for i in range(2)
            for j in range(2)
        ]
    ).mean()
    online, moved = change(
        lambda x: cirkd.minibatch_pixel(student, x, INSIDE, TAU), teacher, store(encoding, teacher)
    )
    assert moved <= bound + ROUNDING
    # The worst case of coarse steps says nothing; what they do cost is measured.
    assert (bound < online) == (name not in ("uint4_per_channel", "int8_per_pixel"))
    assert moved < 0.01 * online


@pytest.mark.parametrize("name", FEATURES)
def test_memory_term_moves_within_its_bound(name: str) -> None:
    encoding = ENCODINGS[name].bind(D)
    student, teacher = draw("projected", 2, D, 8, 8), draw("teacher", 2, D, 8, 8).relu()
    embeddings = pixel_embeddings(draw("contrast", 1, D, 8, 5).relu())[0]
    contrast = Contrast(embeddings, torch.ones(40, dtype=torch.bool), torch.zeros(40).long())
    error = embedding_error(teacher.double(), max_error(encoding, teacher))
    s, t = (pixel_embeddings(x.double()).flatten(0, 1) for x in (student, teacher))
    # The queue holds the same embeddings either way.
    v = embeddings.double()
    bound = similarity_bound(s, t, v, v, error.flatten())
    online, moved = change(
        lambda x: cirkd.memory(student, x, INSIDE, contrast, TAU), teacher, store(encoding, teacher)
    )
    assert moved <= bound + ROUNDING
    assert (bound < online) == (name != "uint4_per_channel")
    assert moved < 0.01 * online


@pytest.mark.parametrize("shift", [1e-3, 0.1, 1.0])
def test_the_bound_of_a_kl_is_nearly_reached(shift: float) -> None:
    """By logits that shift against the student where the teacher differs from it most."""
    teacher, student = draw("teacher", 500, K).double(), 2 * draw("student", 500, K).double()
    p, q = teacher.softmax(-1), student.softmax(-1)
    g = (p / q).log()
    worst = teacher + shift * (g - (p * g).sum(-1, keepdim=True)).sign()
    kl = [(x.softmax(-1) * (x.log_softmax(-1) - q.log())).sum(-1) for x in (teacher, worst)]
    ratio = (kl[1] - kl[0]).abs() / change_of_kl(teacher, student, torch.tensor(shift).double())
    assert ratio.max() <= 1
    assert ratio.min() > 0.3
