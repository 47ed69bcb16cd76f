"""The distillation methods by name: the terms each adds to cross-entropy, and their weights.

CIRKD's weights are the paper's (alpha 1, beta 0.1, gamma 0.1); the others are those of the CIRKD
repository's scripts, which bundle terms: SKD, IFVD and CWD come with KD and the adversarial term.
"""

_HOLISTIC = {"kd": 1.0, "skd_holistic": 1e-3}

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

# Terms that no method above holds: CIRKDV2's, for `terms:` (weights 1, 0.1, 100, 1 there).
_SINGLE = ("channel_minibatch", "channel_memory", "channel_mse", "contextual_fitnet")

TERMS = (*dict.fromkeys(term for terms in METHODS.values() for term in terms), *_SINGLE)
