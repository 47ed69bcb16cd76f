"""The distillation methods by name: the terms each adds to cross-entropy, and their weights."""

METHODS: dict[str, dict[str, float]] = {
    "ce": {},
    "kd": {"kd": 1.0},
    # CIRKD, CVPR 2022 (arXiv 2204.06986), section 4.1: alpha 1, beta 0.1, gamma 0.1.
    "cirkd": {"kd": 1.0, "minibatch_pixel": 1.0, "memory_pixel": 0.1, "memory_region": 0.1},
}

TERMS = frozenset(term for terms in METHODS.values() for term in terms)
