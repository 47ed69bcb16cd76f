"""Which methods a store suffices for: terms declare the targets they need, a store what it has."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.config.methods import METHODS, TERMS
from pipeline.config.params import StudentConfig
from store.arrays import TARGETS
from store.errors import StoreMismatchError, list_lines
from store.schema import StoreSpec, target_arrays


def missing_targets(terms: Collection[str], spec: StoreSpec) -> dict[str, list[str]]:
    """Name the terms that need what the store lacks, each with the targets it misses."""
    missing = {
        term: [need for need in TERMS[term].needs if need not in spec.targets] for term in terms
    }
    return {term: lacking for term, lacking in missing.items() if lacking}


def supported_methods(spec: StoreSpec) -> list[str]:
    """Name the methods whose terms find in the store all that they tell apart."""
    return [
        method
        for method, terms in METHODS.items()
        if not missing_targets(terms, spec) and _find_coarse(terms, spec, "") is None
    ]


def check_requirements(config: StudentConfig, spec: StoreSpec, where: str) -> None:
    """Refuse a run, before anything is built, that the store does not suffice for.

    Raises:
        StoreMismatchError: naming the terms, the arrays they miss, and what the store suffices for.
    """
    if (coarse := _find_coarse(config.weights, spec, where)) is not None:
        raise coarse
    missing = missing_targets(config.weights, spec)
    if not missing:
        return
    arrays = target_arrays(spec)
    lines = [
        f"{term} needs {', '.join(name for target in lacking for name in arrays[target])}"
        for term, lacking in missing.items()
    ]
    wanted = {*spec.targets, *(target for lacking in missing.values() for target in lacking)}
    targets = ", ".join(target for target in TARGETS if target in wanted)
    methods = ", ".join(supported_methods(spec))
    raise StoreMismatchError(
        f"the store lacks arrays that {config.label} learns from",
        where=where,
        expected=list_lines(lines),
        found=f"targets {', '.join(spec.targets)}, which serve {methods}",
        hint=f"choose one of these methods, or set store.targets: [{targets}] in params.yaml and "
        "run `dvc repro`, which extracts a store that holds them",
    )


def _find_coarse(terms: Collection[str], spec: StoreSpec, where: str) -> StoreMismatchError | None:
    """Find an encoding that does not tell apart what a term compares, as what refuses the run."""
    each_channel = [term for term in terms if TERMS[term].each_channel]
    each_class = [term for term in terms if TERMS[term].each_class]
    hint = "set another encoding in store.encodings.{} of params.yaml, or leave the term out"
    if spec.basis and each_channel:
        return StoreMismatchError(
            f"{each_channel[0]} compares channels one by one, and the store's are a subspace's",
            where=where,
            expected=f"all {spec.teacher_channels} channels of the teacher's features",
            found=f"{spec.feature_channels} coordinates",
            hint=hint.format("features"),
        )
    if spec.logits_encoding.measure == "kl" and each_class:
        return StoreMismatchError(
            f"{each_class[0]} compares all logits, and the store keeps a few of each pixel",
            where=where,
            expected=f"all {spec.num_classes} logits",
            found=spec.logits_encoding.name,
            hint=hint.format("logits"),
        )
    return None
