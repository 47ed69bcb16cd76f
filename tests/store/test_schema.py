from collections.abc import Callable

import pytest

from store.arrays import ARRAYS, AXES, TARGETS, arrays_table, batch_arrays
from store.errors import StoreMismatchError
from store.layout import unit_key
from store.schema import (
    SCHEMA_VERSION,
    StoreSpec,
    array_specs,
    diff_identity,
    map_arrays,
    target_arrays,
)

MakeSpec = Callable[..., StoreSpec]


def test_the_fingerprint_is_the_identity_and_nothing_else(make_spec: MakeSpec) -> None:
    spec = make_spec(identity={"a": 1, "b": {"c": [1, 2], "d": "x"}})
    same = make_spec(identity={"b": {"d": "x", "c": (1, 2)}, "a": 1}, provenance={"numpy": "new"})
    assert spec.fingerprint == same.fingerprint
    assert len(spec.fingerprint) == 16
    others = [
        {"a": 2, "b": {"c": [1, 2], "d": "x"}},
        {"a": 1, "b": {"c": [2, 1], "d": "x"}},
        {"a": 1},
    ]
    assert spec.fingerprint not in {make_spec(identity=other).fingerprint for other in others}


@pytest.mark.parametrize(
    ("logits", "features"),
    [("float32", "float16"), ("float16", "uint8_per_pixel"), ("top_3", "uint4_per_channel")],
)
def test_a_spec_survives_json(make_spec: MakeSpec, logits: str, features: str) -> None:
    classes = tuple("abcde")
    spec = make_spec(logits, features, num_classes=5, class_names=classes)
    again = StoreSpec.from_dict(spec.to_dict())
    assert again == spec
    assert again.fingerprint == spec.fingerprint


@pytest.mark.parametrize("unit_size", [1, 3, 4, 10, 64])
def test_units_cover_the_records_once_and_own_their_files(
    make_spec: MakeSpec, unit_size: int
) -> None:
    spec = make_spec(unit_size=unit_size)
    covered = [record for unit in range(spec.num_units) for record in spec.unit_records(unit)]
    assert covered == list(range(spec.num_records))
    files = [unit_key(a, u) for a in array_specs(spec).values() for u in range(spec.num_units)]
    assert len(set(files)) == len(files)
    with pytest.raises(IndexError, match="is not in"):
        spec.unit_records(spec.num_units)


def test_the_arrays_are_those_of_the_design(make_spec: MakeSpec) -> None:
    shapes = {name: (a.shape, a.dtype, a.sharded) for name, a in array_specs(make_spec()).items()}
    table = {name: shape for name, shape in shapes.items() if len(shape[0]) == 1}
    assert {name: shape for name, shape in shapes.items() if name not in table} == {
        "image": ((10, 3, 16, 32), "uint8", True),
        "labels": ((10, 16, 32), "uint8", True),
        "logits": ((10, 3, 2, 4), "float16", True),
        "features": ((10, 4, 2, 4), "uint8", True),
        "features_scale": ((10, 2, 4), "float32", True),
        "auxiliary_attention": ((10, 2, 4), "float16", True),
        "region_center": ((10, 3, 4), "float16", False),
        "region_pixels": ((10, 3), "int32", False),
        "pixel_sample": ((10, 6, 4), "float16", False),
        "pixel_sample_class": ((10, 6), "uint8", False),
    }
    assert table["key"] == ((10,), "str", False)
    assert len(table) == 10


def test_differences_are_told_field_by_field() -> None:
    expected = {"teacher": {"sha256": "aa", "kind": "r101"}, "views": [1, 2], "seed": None}
    found = {"teacher": {"sha256": "bb", "kind": "r101"}, "views": [1, 3], "extra": {}}
    assert diff_identity(expected, found) == [
        "seed: expected null, found nothing",
        'teacher.sha256: expected "aa", found "bb"',
        "views: expected [1,2], found [1,3]",
    ]
    assert diff_identity(expected, expected) == []


def test_a_spec_that_cannot_be_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(StoreMismatchError, match="num_views"):
        make_spec(num_views=0)
    with pytest.raises(StoreMismatchError, match="class names"):
        make_spec(class_names=("sky",))
    with pytest.raises(StoreMismatchError, match="stride 4"):
        make_spec(stride=4)
    assert SCHEMA_VERSION == 2


def test_a_store_of_every_target_says_nothing_of_them(make_spec: MakeSpec) -> None:
    """So that what was written before there was a choice reads, and is named, as ever."""
    described = make_spec().to_dict()
    assert "targets" not in described
    assert StoreSpec.from_dict(described).targets == TARGETS
    part = make_spec(targets=("logits",))
    assert part.to_dict()["targets"] == ["logits"]
    assert StoreSpec.from_dict(part.to_dict()) == part


@pytest.mark.parametrize("target", TARGETS)
def test_only_the_arrays_of_the_targets_are_there(make_spec: MakeSpec, target: str) -> None:
    spec = make_spec(targets=(target,))
    views = {one.name for one in ARRAYS if one.target is None}
    assert set(array_specs(spec)) == views | set(target_arrays(spec)[target])
    whole = {name for arrays in target_arrays(make_spec()).values() for name in arrays}
    assert set(array_specs(make_spec())) == views | whole


@pytest.mark.parametrize("targets", [("embeddings",), ("features", "logits"), ("logits",) * 2])
def test_strange_targets_are_refused(make_spec: MakeSpec, targets: tuple[str, ...]) -> None:
    with pytest.raises(StoreMismatchError, match="targets"):
        make_spec(targets=targets)


def test_the_table_of_the_documentation_is_the_one_that_stores_follow(make_spec: MakeSpec) -> None:
    lines = arrays_table().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == [one.name for one in ARRAYS]
    assert "| `region_center` | [N,K,D] | float16 | regions | " in arrays_table()
    assert {axis for one in ARRAYS for axis in one.axes} | {"record"} == set(AXES)
    stored = array_specs(make_spec("float32", "float32"))
    for one in ARRAYS:
        assert stored[one.name].axes == ("record", *one.axes)
        assert stored[one.name].dtype == (one.dtype or "float32")


@pytest.mark.parametrize("target", TARGETS)
def test_a_batch_of_a_target_is_read_from_its_arrays(make_spec: MakeSpec, target: str) -> None:
    spec = make_spec("top_3", num_classes=5, class_names=tuple("abcde"))
    read = {a for name in batch_arrays(target) for a in map_arrays(spec, name).values()}
    samples = {"pixel_sample", "pixel_sample_class"} if target == "regions" else set()
    assert read | samples == set(target_arrays(spec)[target])
