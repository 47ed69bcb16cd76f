"""`cirkd clean`: what nothing refers to is listed, and removed when told so; nothing else ever."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.config.params import Params
from stages.cli import main
from store.files import write_json
from store.lock import Lock, is_locked
from store.manifest import Manifest
from store.reader import Reader

ROOT = Path(__file__).parents[2]


def plant(path: str, content: str = "x") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
    return path


def plant_training(name: str, header: dict[str, Any]) -> str:
    plant(f"artifacts/work/{name}/log.jsonl", json.dumps(header) + "\n")
    return f"artifacts/work/{name}"


def clean(*options: str) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(main, ["clean", "--json", *options])
    assert done.exit_code == 0, done.output
    return {one["path"]: one for one in json.loads(done.stdout)}


@pytest.fixture
def wanted(
    tiny_store: Reader, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> set[Path]:
    """The files of a project in which the profile tiny has run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy("profiles/tiny.yaml", "params.yaml")
    folder = f"artifacts/stores/{tiny_store.spec.fingerprint}"
    shutil.copytree(tiny_store.path, folder)
    manifest = Manifest.of(folder, tiny_store.spec, tiny_store.journal)
    Path("artifacts/manifests").mkdir()
    manifest.write("artifacts/manifests/tiny.json")
    plant(f"artifacts/banks/{manifest.digest[:16]}/pixel.npy")
    plant("artifacts/manifests/tiny.audit.json")
    plant("artifacts/datasets/tiny/index.json")
    plant("artifacts/teachers/tiny.pt")
    plant("artifacts/profiles/tiny/students/r18_ce/model.pt")
    plant("artifacts/profiles/tiny/report/index.html")
    plant("artifacts/fingerprint.json")
    plant("artifacts/work/train-r18_ce.log")
    student = tiny_params.students["r18_ce"].model_dump(mode="json")
    plant_training("student-1", {"params": student})
    plant_training("teacher-1", {"params": tiny_params.teacher.model_dump(mode="json")})
    return files()


def files() -> set[Path]:
    return {path for path in Path().rglob("*") if path.is_file()}


@pytest.fixture
def leftovers(wanted: set[Path], tiny_params: Params) -> set[str]:
    """What is left there of names and settings that were given up."""
    plant("artifacts/datasets/old/index.json")
    plant("artifacts/stores/0123/zarr.json")
    plant("artifacts/banks/4567/pixel.npy")
    plant("artifacts/profiles/old/students/r18_ce/model.pt")
    plant("artifacts/profiles/tiny/students/given_up/model.pt", "x" * 1000)
    other = {**tiny_params.students["r18_ce"].model_dump(mode="json"), "seed": 99}
    return {
        plant_training("student-2", {"params": other}),
        plant_training("student-3", {}),
        plant("artifacts/work/train-given_up.log"),
        plant("artifacts/teachers/old.pt"),
        plant("artifacts/teachers/old.json"),
        plant("artifacts/manifests/old.audit.json"),
        "artifacts/datasets/old",
        "artifacts/stores/0123",
        "artifacts/banks/4567",
        "artifacts/profiles/old",
        "artifacts/profiles/tiny/students/given_up",
    }


def test_what_a_run_has_left_is_referred_to(wanted: set[Path]) -> None:
    assert clean("--yes") == {}
    assert files() == wanted


def test_leftovers_are_listed_with_sizes_and_stay(leftovers: set[str]) -> None:
    before = files()
    found = clean()
    assert found.keys() == leftovers
    assert found["artifacts/profiles/tiny/students/given_up"]["num_bytes"] == 1000
    assert not any(one["removed"] or one["in_use"] for one in found.values())
    assert files() == before
    words = CliRunner().invoke(main, ["clean"]).stdout  # no terminal: nobody is asked
    assert all(path in words for path in leftovers)
    assert files() == before


def test_yes_removes_leftovers_and_nothing_else(wanted: set[Path], leftovers: set[str]) -> None:
    assert {path for path, one in clean("--yes").items() if one["removed"]} == leftovers
    assert files() == wanted
    assert clean() == {}


def test_what_is_locked_stays_and_so_does_the_store_that_it_reads(leftovers: set[str]) -> None:
    running = plant_training("student-4", {"store": "0123"})
    with Lock(Path(running)):
        assert is_locked(Path(running))
        found = clean("--yes")
    kept = {running, "artifacts/stores/0123"}
    assert {path for path, one in found.items() if one["in_use"] and not one["removed"]} == kept
    assert {path for path, one in found.items() if one["removed"]} == leftovers - kept
    assert Path("artifacts/stores/0123/zarr.json").exists()
    assert not is_locked(Path(running))
    assert clean("--yes").keys() == kept


def test_links_are_not_followed(
    wanted: set[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("x" * 5000)
    Path("artifacts/stores/linked").symlink_to(outside)
    Path("artifacts/work/inside").mkdir()
    Path("artifacts/work/inside/linked").symlink_to(outside)
    shutil.rmtree("artifacts/banks")
    Path("artifacts/banks").symlink_to(outside)  # what lies in it lies elsewhere
    found = clean("--yes")
    assert found.keys() == {"artifacts/stores/linked", "artifacts/work/inside"}
    assert all(one["removed"] and one["num_bytes"] < 1000 for one in found.values())
    assert not Path("artifacts/stores/linked").is_symlink()
    assert (outside / "kept").exists()


def test_files_of_the_users_own_in_a_datasets_folder_stay(wanted: set[Path]) -> None:
    own, ours = (
        plant("artifacts/datasets/old/train/a.png"),
        plant("artifacts/datasets/old/root.txt"),
    )
    assert clean("--yes").keys() == {ours}
    assert Path(own).exists()


def test_a_store_that_settings_lead_to_is_referred_to_before_it_is_finished(
    wanted: set[Path], tiny_store: Reader
) -> None:
    Path("artifacts/manifests/tiny.json").unlink()
    shutil.rmtree("artifacts/banks")
    store = f"artifacts/stores/{tiny_store.spec.fingerprint}"
    sha256 = tiny_store.spec.identity["teacher"]["sha256"]
    write_json({"sha256": sha256}, Path("artifacts/teachers/tiny.json"))
    assert clean() == {}
    write_json({"sha256": "another teacher's"}, Path("artifacts/teachers/tiny.json"))
    assert clean().keys() == {store}


@pytest.mark.parametrize("path", ["profiles/scenes.yaml", "artifacts/manifests/tiny.json"])
def test_a_reference_that_cannot_be_read_removes_nothing(path: str, leftovers: set[str]) -> None:
    Path(path).write_text("[")
    before = files()
    done = CliRunner().invoke(main, ["clean", "--yes"])
    assert done.exit_code == 1
    assert path in done.stderr
    assert files() == before


def test_without_any_params_nothing_is_a_leftover(leftovers: set[str]) -> None:
    shutil.rmtree("profiles")
    Path("params.yaml").unlink()
    done = CliRunner().invoke(main, ["clean", "--yes"])
    assert done.exit_code == 1
    assert "run in the project's root" in done.stderr
    assert Path("artifacts/teachers/old.pt").exists()


def test_a_store_of_one_of_two_teachers_of_a_name_stays(wanted: set[Path]) -> None:
    """Of the teachers that profile and params.yaml describe one file can be there."""
    Path("artifacts/manifests/tiny.json").unlink()
    assert any(path.startswith("artifacts/stores") for path in clean())
    raw = YAML(typ="safe").load(Path("params.yaml"))
    raw["teacher"]["seed"] = 9
    YAML().dump(raw, Path("params.yaml"))
    assert not any(path.startswith("artifacts/stores") for path in clean())


def test_what_kept_parameters_name_stays(leftovers: set[str]) -> None:
    raw = YAML(typ="safe").load(Path("params.yaml"))
    raw |= {"profile": "old"}
    YAML().dump(raw, Path("artifacts/params-0123abcd.yaml"))
    assert "artifacts/profiles/old" not in clean()
