"""Profiles: one entry with lists stands for a run of each combination."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.params import ParamsError, load_params, load_profile
from pipeline.config.profile import expand_students

ROOT = Path(__file__).parents[3]


def test_an_entry_with_lists_is_every_combination() -> None:
    entry = {"architecture": "a", "methods": ["ce", "kd"], "seeds": [0, 3]}
    runs = expand_students({"r18": entry, "one": {"method": "ce", "seed": 1}})
    assert runs == {
        "r18_ce_0": {"architecture": "a", "method": "ce", "seed": 0},
        "r18_ce_3": {"architecture": "a", "method": "ce", "seed": 3},
        "r18_kd_0": {"architecture": "a", "method": "kd", "seed": 0},
        "r18_kd_3": {"architecture": "a", "method": "kd", "seed": 3},
        "one": {"method": "ce", "seed": 1},
    }
    assert entry["seeds"] == [0, 3]


def test_runs_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"students\.r18_0: a second run r18_0"):
        expand_students({"r18": {"seeds": [0]}, "r18_0": {"seed": 0}})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"method": "ce", "seeds": []}, "students"),
        ({"method": "ce", "seeds": 3}, "students"),
        ({"methods": ["magic"], "seeds": [0]}, "r18_magic_0"),
        ({"method": "ce", "seed": 1, "seeds": [0]}, "either"),
        ("r18", "r18"),
    ],
)
def test_a_wrong_entry_is_named(entry: object, expected: str, tmp_path: Path) -> None:
    raw = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    if isinstance(entry, dict):
        entry = {"architecture": "deeplabv3_resnet18", **entry}
    raw["students"] = {"r18": entry}
    path = tmp_path / "profile.yaml"
    YAML().dump(raw, path)
    with pytest.raises(ParamsError, match=expected):
        load_profile(path)


def test_what_holds_no_list_is_as_parameters_are() -> None:
    path = ROOT / "profiles/tiny.yaml"
    assert load_profile(path) == load_params(path)
