"""The distillation terms and methods by name, as data: for params.yaml, requirements and reports.

`pipeline.distillation.terms.COMPUTATIONS` says how each term is computed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A distillation term, as far as it can be told without computing it.

    Attributes:
        title: in words, for reports.
        needs: stored targets that it reads, names of `store.arrays.TARGETS`.
        whole_records: whether it compares maps of one size, so that records cannot be cropped.
        each_channel: whether it compares channels one by one, each at length one: a weak one, which
            a subspace leaves out, counts as much as a strong one.
        each_class: whether it compares each class's logits over the pixels, or logits as they are:
            there the improbable classes count, which `top_k` does not tell apart.
    """

    title: str
    needs: tuple[str, ...]
    whole_records: bool = False
    each_channel: bool = False
    each_class: bool = False


_LOGITS = ("logits",)
_FEATURES = ("features",)
_REGIONS = ("features", "regions")
_LAYERS = ("auxiliary_attention", "logits", "features")

TERMS: dict[str, Term] = {
    "kd": Term("KD of class probabilities", _LOGITS),
    "minibatch_pixel": Term("Mini-batch pixel-to-pixel", _FEATURES),
    "memory_pixel": Term("Memory pixel-to-pixel", _REGIONS),
    "memory_region": Term("Memory pixel-to-region", _REGIONS),
    "skd_pairwise": Term("SKD, pairwise similarities", _FEATURES),
    "skd_holistic": Term("SKD, discriminator of logits", _LOGITS, each_class=True),
    "ifvd": Term("IFVD, similarity to the class mean", _FEATURES),
    "cwd_logits": Term("CWD of logits", _LOGITS, each_class=True),
    "cwd_features": Term("CWD of features", _FEATURES),
    "at": Term("AT, attention maps", _FEATURES),
    "fitnet": Term("FitNet, the features themselves", _FEATURES),
    "dsd_csd": Term("DSD, similarity of classes", _LOGITS, each_class=True),
    "dsd_psd": Term("DSD, similarity of pixels between layers", _LAYERS, each_class=True),
    "channel_minibatch": Term("Mini-batch channel-to-channel", _FEATURES, each_channel=True),
    "channel_memory": Term(
        "Memory channel-to-channel", _FEATURES, whole_records=True, each_channel=True
    ),
    "channel_mse": Term("Channel maps, squared error", _FEATURES, each_channel=True),
    "contextual_fitnet": Term("FitNet after attention", _FEATURES),
}

_HOLISTIC = {"kd": 1.0, "skd_holistic": 1e-3}

# Method -> weights of the terms that it adds to cross-entropy. CIRKD's weights are the paper's
# (alpha 1, beta 0.1, gamma 0.1); the others are those of the CIRKD repository's scripts, which
# bundle terms: SKD, IFVD and CWD come with KD and the adversarial term. CIRKDV2's terms
# (channel_*: weights 1, 0.1, 100 there; contextual_fitnet: 1) are in no method: `terms:` has them.
METHODS: dict[str, dict[str, float]] = {
    "ce": {},
    "kd": {"kd": 1.0},
    "cirkd": {"kd": 1.0, "minibatch_pixel": 1.0, "memory_pixel": 0.1, "memory_region": 0.1},
    "skd": {**_HOLISTIC, "skd_pairwise": 10.0},
    "ifvd": {**_HOLISTIC, "ifvd": 20.0},
    "cwd": {**_HOLISTIC, "cwd_features": 50.0, "cwd_logits": 3.0},
    "at": {"kd": 1.0, "at": 10_000.0},
    "fitnet": {"kd": 1.0, "fitnet": 10.0},
    "dsd": {"dsd_psd": 1000.0, "dsd_csd": 10.0},
}
