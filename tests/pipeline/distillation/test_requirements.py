"""Which methods a store serves, and how a run is refused that it cannot teach."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.config.methods import METHODS, TERMS
from pipeline.config.params import Params, StudentConfig
from pipeline.distillation.requirements import check_requirements, supported_methods
from store.arrays import TARGETS
from store.encodings.registry import ENCODINGS
from store.errors import StoreMismatchError
from store.reader import Reader
from store.schema import StoreSpec

SpecOf = Callable[..., StoreSpec]


@pytest.fixture
def spec_of(tiny_store: Reader) -> SpecOf:
    return lambda *targets: replace(tiny_store.spec, targets=targets)


def run_with(tiny_params: Params, **update: object) -> StudentConfig:
    return StudentConfig.model_validate(tiny_params.students["r18_ce"].model_dump() | update)


@pytest.mark.parametrize(
    ("targets", "served"),
    [
        (TARGETS, [*METHODS]),
        (("logits",), ["ce", "kd"]),
        (("features",), ["ce"]),
        (("logits", "features"), ["ce", "kd", "skd", "ifvd", "cwd", "at", "fitnet"]),
        (("logits", "features", "regions"), [m for m in METHODS if m != "dsd"]),
    ],
)
def test_a_store_serves_the_methods_whose_targets_it_holds(
    targets: tuple[str, ...], served: list[str], spec_of: SpecOf
) -> None:
    assert supported_methods(spec_of(*targets)) == served


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_refused_exactly_where_a_need_is_missing(
    term: str, spec_of: SpecOf, tiny_params: Params
) -> None:
    run = run_with(tiny_params, method=None, terms={term: 1.0})
    for left_out in TARGETS:
        spec = spec_of(*(target for target in TARGETS if target != left_out))
        if left_out in TERMS[term].needs:
            with pytest.raises(StoreMismatchError, match=f"{term} needs {left_out[:6]}"):
                check_requirements(run, spec, "here")
        else:
            check_requirements(run, spec, "here")


def test_terms_of_all_logits_are_refused_where_a_few_are_kept(
    spec_of: SpecOf, tiny_params: Params
) -> None:
    spec = replace(spec_of(*TARGETS), logits_encoding=ENCODINGS["top_3"])
    assert supported_methods(spec) == ["ce", "kd", "cirkd", "at", "fitnet"]
    with pytest.raises(StoreMismatchError, match=r"(?s)skd_holistic compares all logits.*top_3"):
        check_requirements(run_with(tiny_params, method="ifvd"), spec, "here")
    check_requirements(run_with(tiny_params, method="cirkd"), spec, "here")


def test_the_refusal_says_what_is_missing_and_what_to_do(
    spec_of: SpecOf, tiny_params: Params
) -> None:
    with pytest.raises(StoreMismatchError) as refusal:
        check_requirements(run_with(tiny_params, method="cirkd"), spec_of("logits"), "here")
    text = str(refusal.value)
    assert "memory_pixel needs features, features_scale, region_center, region_pixels" in text
    assert "minibatch_pixel needs features, features_scale\n" in text
    assert "kd needs" not in text
    assert "targets logits, which serve ce, kd" in text
    assert "store.targets: [logits, features, regions]" in text
