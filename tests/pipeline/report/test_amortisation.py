"""Break-even: the fewest students with which the store costs no more, by brute force."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.amortisation import Amortisation

SECONDS = st.floats(0.01, 1e4)


def make(extraction_s: float, offline_s: float, **step_s: float) -> Amortisation:
    costs = {"extraction_s": extraction_s, "offline_s": offline_s, "step_s": step_s}
    return Amortisation.from_costs("f00d", "r18_cirkd", teacher_s=5.0, **costs)


def test_a_student_costs_what_its_step_costs() -> None:
    found = make(100.0, 60.0, ce=0.5, offline=1.0, online=1.5, public_code=3.0)
    assert found.student_s == {"offline": 60, "online": 90, "public_code": 180}
    assert found.baselines == ("online", "public_code")
    assert [found.break_even(variant) for variant in found.baselines] == [4, 1]
    assert found.total_s("offline", 4) == 340
    assert found.total_s("online", 4) == 360


@given(extraction=SECONDS, offline=SECONDS, ratio=st.floats(0.5, 3))
def test_break_even_is_the_first_that_costs_no_more(
    extraction: float, offline: float, ratio: float
) -> None:
    found = make(extraction, offline, offline=1.0, online=ratio)
    even = found.break_even("online")
    if even is None:
        assert found.student_s["online"] <= found.student_s["offline"]
        return
    slack = 1e-6 * found.total_s("online", even)
    assert found.total_s("offline", even) <= found.total_s("online", even) + slack
    if even > 1:
        fewer = even - 1
        assert found.total_s("offline", fewer) > found.total_s("online", fewer) - slack


@pytest.mark.parametrize("online", [0.5, 1.0])
def test_a_store_that_saves_nothing_never_pays(online: float) -> None:
    assert make(1.0, 10.0, offline=1.0, online=online).break_even("online") is None


def test_json_and_back() -> None:
    found = make(100.0, 60.0, ce=0.5, offline=1.0, online=0.9, public_code=3.0)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["break_even"] == {"online": None, "public_code": 1}
    assert Amortisation.from_dict(written) == found


def test_a_file_of_before_is_read_by_the_variants_new_names() -> None:
    found = make(100.0, 60.0, ce=0.5, offline=1.0, online=0.9, public_code=3.0)
    written = json.loads(json.dumps(found.to_dict()))
    for name in ("step_s", "student_s"):
        seconds = written[name]
        seconds["live"], seconds["online"] = seconds.pop("online"), seconds.pop("public_code")
    assert Amortisation.from_dict(written) == found
