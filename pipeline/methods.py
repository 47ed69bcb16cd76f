"""The distillation methods by name: the terms each adds to cross-entropy, and their weights.

Weights are those of the CIRKD repository's scripts; CIRKD's own are its section 4.1 (alpha 1, beta
0.1, gamma 0.1). Where a script adds an adversarial term, the entry here leaves it out and says so.
"""

CIRKD = {"kd": 1.0, "minibatch_pixel": 1.0, "memory_pixel": 0.1, "memory_region": 0.1}

METHODS: dict[str, dict[str, float]] = {
    "ce": {},
    "kd": {"kd": 1.0},
    "cirkd": CIRKD,
    "skd": {"kd": 1.0, "skd_pairwise": 10.0},  # without the adversarial term
    "ifvd": {"kd": 1.0, "ifvd": 20.0},  # without the adversarial term
    "cwd": {"kd": 1.0, "cwd_features": 50.0, "cwd_logits": 3.0},  # without the adversarial term
    "at": {"kd": 1.0, "at": 10_000.0},
    "fitnet": {"kd": 1.0, "fitnet": 10.0},
}

TERMS = frozenset(
    {
        *(term for terms in METHODS.values() for term in terms),
        "dsd_csd",
        "channel_minibatch",
        "channel_mse",
        "contextual_fitnet",
    }
)
