"""params.yaml: every profile loads, goes round, and nothing unknown or out of range gets in."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from pipeline.config.augment import WHOLE, Augment
from pipeline.config.params import (
    Params,
    ParamsError,
    TrainingConfig,
    load_params,
    load_profile,
    write_params,
)
from pipeline.datasets.camvid import Config as CamVidConfig

ROOT = Path(__file__).parents[3]
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def write(path: Path, raw: object) -> Path:
    with path.open("w") as file:
        YAML().dump(raw, file)
    return path


@pytest.fixture
def raw() -> dict:
    return YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")


def test_params_yaml_is_the_scenes_profile() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "profiles/scenes.yaml").read_text()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_round_trip(profile: Path, tmp_path: Path) -> None:
    params = load_profile(profile)
    assert params.profile == profile.stem
    write_params(params, tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml") == params


def paths_of(raw: object, trail: tuple = ()) -> list[tuple]:
    """Every mapping in the document, by its path."""
    if not isinstance(raw, dict):
        return []
    return [trail, *(path for key in raw for path in paths_of(raw[key], (*trail, key)))]


def test_every_unknown_key_fails(raw: dict, tmp_path: Path) -> None:
    places = [path for path in paths_of(raw) if path != ("students",)]
    assert len(places) > 8
    for place in places:
        document = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
        target = document
        for key in place:
            target = target[key]
        target["unheard_of"] = 1
        with pytest.raises(ParamsError, match="unheard_of"):
            load_params(write(tmp_path / "params.yaml", document))


def with_features(features: object) -> dict[str, object]:
    return {"logits": "float16", "features": features}


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("teacher", "progressive", [{"steps": 2, "factor": 0.5}], "leave none of training.steps 2"),
        ("teacher", "progressive", [{"steps": 1, "factor": 0.4}], "expected sides of 16 or more"),
        ("training", "steps", 0, "greater than or equal to 1"),
        ("training", "steps", "many", "valid integer"),
        ("training", "precision", "float8", "float32"),
        ("training", "batch_size", 1, "greater than or equal to 2"),
        ("store", "num_views", 1.5, "valid integer"),
        ("store", "precision", 16, "float32"),
        ("store", "targets", [], "at least 1 item"),
        ("store", "targets", "logits", "valid tuple"),
        ("store", "targets", ["logits", "gradients"], "expected some of logits, features"),
        ("store", "encodings", with_features("float8"), r"encodings\.features: .*expected one of"),
        ("store", "encodings", with_features({"rank": 8}), r"encodings\.features\.encoding: Field"),
        (
            *("store", "encodings", with_features({"encoding": "subspace", "rank": 0})),
            r"encodings\.features\.rank: .*greater than or equal to 1",
        ),
        (
            *("store", "encodings", with_features({"encoding": "subspace"})),
            r"encodings\.features: .*give a rank, or max_kl",
        ),
        ("distillation", "memory", "heap", "bank"),
        ("distillation", "queue_storage", "int8", "uint8"),
        ("dataset", "kind", "imagenet", "scenes"),
        ("dataset", "height", 33, "multiple of 8"),
        ("dataset", "root", "elsewhere", "Extra inputs"),
        ("teacher", "source", "checkpoint", "checkpoint goes with"),
        ("teacher", "weights", "COCO", "weights goes with"),
        ("teacher", "stride", 0, "greater than or equal to 1"),
        ("teacher", "seed", -1, "greater than or equal to 0"),
        ("distillation", "temperature", 0, "greater than 0"),
    ],
)
def test_a_bad_value_is_named(raw, section, key, value, expected, tmp_path) -> None:
    raw[section][key] = value
    with pytest.raises(ParamsError, match=expected) as failure:
        load_params(write(tmp_path / "params.yaml", raw))
    assert section in str(failure.value)


def test_a_backbone_is_for_a_teacher_that_is_trained(raw: dict, tmp_path: Path) -> None:
    raw["teacher"] |= {"source": "torchvision", "weights": "DEFAULT", "backbone": "imagenet"}
    with pytest.raises(ParamsError, match="backbone goes with source: train"):
        load_params(write(tmp_path / "params.yaml", raw))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"method": None}, "give a method, or terms"),
        ({"terms": {"kd": 1.0}}, "method ce has no term kd"),
        ({"method": "magic"}, "expected one of ce"),
        ({"method": None, "terms": {"magic": 1.0}}, "magic"),
        ({"architecture": "unet"}, "deeplabv3_resnet18"),
        ({"architecture": "smp:dpt/tu-vit"}, "smp:ARCHITECTURE/ENCODER, where"),
        ({"architecture": "smp:fpn"}, "package.module:factory"),
        ({"architecture": "os:"}, "package.module:factory"),
        ({"feature_layer": "body"}, "feature_layer goes with architecture: package.module:fact"),
        ({"training": {"stepz": 3}}, "stepz"),
        ({"training": {"augment": {"crop_height": 20}}}, "multiple of 8"),
        ({"training": {"augment": {"crop_height": 40}}}, r"40 x 32 .* into records of 32 x 32"),
        ({"training": {"augment": {"flip": 0.5}}}, "Extra inputs"),
        (
            {
                "method": None,
                "terms": {"channel_memory": 1.0},
                "training": {"augment": {"crop_width": 16}},
            },
            "channel_memory compares maps of whole records",
        ),
    ],
)
def test_a_bad_student_is_named(raw, entry, expected, tmp_path) -> None:
    raw["students"]["r18_ce"] |= entry
    with pytest.raises(ParamsError, match=expected) as failure:
        load_params(write(tmp_path / "params.yaml", raw))
    assert "students.r18_ce" in str(failure.value)


def test_lists_of_seeds_belong_in_a_profile(raw: dict, tmp_path: Path) -> None:
    raw["students"]["r18_ce"]["seeds"] = [0, 1]
    with pytest.raises(ParamsError, match="seeds of several runs belong in a profile"):
        load_params(write(tmp_path / "params.yaml", raw))


def test_students_that_are_no_mappings_are_findings(raw: dict, tmp_path: Path) -> None:
    raw["students"] |= {"one": 5, "two": [{"seeds": [0]}]}
    with pytest.raises(ParamsError, match=r"(?s)students\.one: .*students\.two: "):
        load_params(write(tmp_path / "params.yaml", raw))


@pytest.mark.parametrize(
    ("terms", "label"),
    [
        ({"ifvd": 20.0}, "ifvd 20"),
        ({"at": 1e4, "kd": 1.0}, "at+kd"),
        ({"kd": 0.5}, "kd"),
        ({}, "ce"),
    ],
)
def test_a_term_is_not_taken_for_the_method_of_its_name(
    terms: dict[str, float], label: str, raw: dict, tmp_path: Path
) -> None:
    """The paper's IFVD is its term beside KD and a critic."""
    raw["students"]["r18_ce"] |= {"method": None, "terms": terms}
    assert load_params(write(tmp_path / "params.yaml", raw)).students["r18_ce"].label == label


def test_a_run_may_weigh_the_terms_of_its_method_otherwise(raw: dict, tmp_path: Path) -> None:
    """On Pascal VOC the paper's memory weights are 0.01."""
    raw["students"]["r18_cirkd"]["terms"] = {"memory_pixel": 0.01, "memory_region": 0.01}
    run = load_params(write(tmp_path / "params.yaml", raw)).students["r18_cirkd"]
    assert run.label == "cirkd"
    assert run.weights == {
        "kd": 1.0,
        "minibatch_pixel": 1.0,
        "memory_pixel": 0.01,
        "memory_region": 0.01,
    }


def test_a_student_overrides_the_shared_training(raw: dict, tmp_path: Path) -> None:
    raw["students"]["r18_ce"]["training"] = {"steps": 77}
    students = load_params(write(tmp_path / "params.yaml", raw)).students
    assert students["r18_ce"].training.steps == 77
    assert students["r18_ce"].training.batch_size == raw["training"]["batch_size"]
    assert students["r18_cirkd"].training.steps == raw["training"]["steps"]


def test_targets_are_in_one_order(raw: dict, tmp_path: Path) -> None:
    raw["store"]["targets"] = ["regions", "logits", "regions"]
    params = load_params(write(tmp_path / "params.yaml", raw))
    assert params.store.targets == ("logits", "regions")
    write_params(params, tmp_path / "again.yaml")
    assert load_params(tmp_path / "again.yaml") == params


def test_only_students_change_what_is_stored_and_only_if_told(raw: dict, tmp_path: Path) -> None:
    raw["training"]["augment"] = {"flip_probability": 0.5}
    raw["students"]["r18_ce"]["training"] = {"augment": {"crop_height": 16, "crop_width": 24}}
    students = load_params(write(tmp_path / "params.yaml", raw)).students
    assert students["r18_ce"].training.augment == Augment(crop_height=16, crop_width=24)
    assert students["r18_cirkd"].training.augment == Augment(flip_probability=0.5)
    assert load_params(ROOT / "profiles/tiny.yaml").students["r18_ce"].training.augment == WHOLE
    raw["teacher"]["training"]["augment"] = {"flip_probability": 0.5}
    with pytest.raises(ParamsError, match=r"teacher\.training\.augment: Extra inputs"):
        load_params(write(tmp_path / "params.yaml", raw))


def test_a_dataset_lies_under_its_name_unless_told() -> None:
    camvid = load_profile(ROOT / "profiles/camvid.yaml").dataset
    assert isinstance(camvid, CamVidConfig)
    assert camvid.root == "artifacts/datasets/camvid"
    assert CamVidConfig(kind="camvid", name="other", root="/data").root == "/data"


@pytest.mark.parametrize("ablation", ["ablation-terms", "ablation-queues"])
def test_ablations_share_the_teacher_of_scenes_and_one_store(ablation: str) -> None:
    """Manifests are named by their store: two settings under one name would take turns."""
    names = ("scenes", "ablation-terms", ablation)
    scenes, terms, other = (load_profile(ROOT / f"profiles/{name}.yaml") for name in names)
    for section in ("dataset", "teacher", "training"):
        assert getattr(scenes, section) == getattr(other, section), section
    assert scenes.store == terms.store == other.store


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_no_run_of_a_profile_repeats_another(profile: Path) -> None:
    students = list(load_profile(profile).students.values())
    assert all(one not in students[:place] for place, one in enumerate(students))


def test_all_findings_come_at_once(raw: dict, tmp_path: Path) -> None:
    raw["training"]["steps"] = 0
    raw["store"]["unit_size"] = 0
    with pytest.raises(ParamsError) as failure:
        load_params(write(tmp_path / "params.yaml", raw))
    assert "training.steps" in str(failure.value)
    assert "store.unit_size" in str(failure.value)


def places_of(raw: object, kind: type, trail: tuple = ()) -> list[tuple]:
    """Every value of one type in the document, by its path."""
    if isinstance(raw, dict):
        return [path for key in raw for path in places_of(raw[key], kind, (*trail, key))]
    if isinstance(raw, list):
        return [p for n, value in enumerate(raw) for p in places_of(value, kind, (*trail, n))]
    return [trail] if type(raw) is kind else []


def replaced(raw: dict, place: tuple, value: object) -> dict:
    """A copy of the document with another value in one place."""
    document = copy.deepcopy(raw)
    target: Any = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return document


@pytest.mark.parametrize(
    "value",
    [float("inf"), float("-inf"), float("nan"), 10**400],
    ids=["inf", "-inf", "nan", "huge"],
)
def test_no_number_is_infinite_or_huge(value: float, raw: dict, tmp_path: Path) -> None:
    raw["training"] |= {"clip_norm": 1.0, "ema_decay": 0.5}
    raw["teacher"]["progressive"] = [{"steps": 1, "factor": 0.5}]
    raw["students"]["r18_ce"] |= {"method": None, "terms": {"kd": 1.0}}
    Params.model_validate(raw)
    places = [*places_of(raw, float), *places_of(raw, int)]
    assert len(places) > 40
    for place in places:
        with pytest.raises(ValidationError, match=str(place[-1])):
            Params.model_validate(replaced(raw, place, value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [1]\nb: *a\n", r"line 2: \*a is an alias; write its value out"),
        ("a: " + 10_000 * "[", "nested more than 20 deep"),
        ("a: " + 10_000 * "{b: ", "nested more than 20 deep"),
        (10_000 * "- ", "nested more than 20 deep"),
        ("a: " + 5000 * "9", "a value of more than 1000 characters"),
        ("profile: 0x" + 900 * "f", "profile: Input should be a valid string"),
        ("#" * 200_000, "expected at most 100000 bytes; found 200000"),
        ("a: 1\na: 2\n", "not readable as YAML"),
        ("--- 1\n--- 2\n", "not readable as YAML"),
        ("a: !!python/name:os.system ''", "not readable as YAML"),
    ],
    ids=["alias", "lists", "maps", "dashes", "digits", "hex", "size", "twice", "two", "python"],
)
def test_yaml_that_is_small_to_write_and_large_to_read_is_refused(
    text: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=rf"params\.yaml: (.|\n)*{expected}"):
        load_params(path)


def test_a_folder_or_a_fifo_is_no_params_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ParamsError, match=f"{path.name}: a folder, or"):
            load_params(path)


@pytest.mark.parametrize("text", ["a: [", "just words", ""])
def test_what_is_no_params_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        load_params(path)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="cirkd profile use"):
        load_params(tmp_path / "params.yaml")


def test_scientific_notation_is_a_number(raw: dict, tmp_path: Path) -> None:
    text = (ROOT / "profiles/tiny.yaml").read_text().replace("0.001", "1e-3")
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").training.learning_rate == 1e-3


def test_models_are_frozen(raw: dict, tmp_path: Path) -> None:
    params = load_params(write(tmp_path / "params.yaml", raw))
    with pytest.raises(ValueError, match="frozen"):
        params.training.steps = 5  # type: ignore[misc]


def test_every_model_is_closed_and_frozen() -> None:
    models: list[type[BaseModel]] = [Params, TrainingConfig]
    assert all(model.model_config["extra"] == "forbid" for model in models)
    assert all(model.model_config["frozen"] for model in models)
