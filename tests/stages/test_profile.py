"""`cirkd profile`: what it writes is what every stage, and DVC, reads."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.config.params import load_params, load_profile
from stages.cli import main

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def use(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["profile", "use", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PROFILES)
def test_every_run_stands_in_params_by_its_name(name: str) -> None:
    use(name)
    assert load_params() == load_profile(ROOT / f"profiles/{name}.yaml")
    # DVC reads the file without this program.
    runs = YAML(typ="safe").load(Path("params.yaml"))["students"]
    assert all(isinstance(run["seed"], int) for run in runs.values())


def test_comments_stay_and_a_root_is_named() -> None:
    use("scenes")
    assert Path("params.yaml").read_text() == (ROOT / "profiles/scenes.yaml").read_text()
    assert "63 students" in use("camvid", "--root", "elsewhere")
    text = Path("params.yaml").read_text()
    assert text.startswith("# ")
    assert load_params().dataset.root == str(Path("elsewhere").resolve())


def test_a_root_is_of_datasets_that_have_one() -> None:
    done = CliRunner().invoke(main, ["profile", "use", "scenes", "--root", "elsewhere"])
    assert done.exit_code == 1
    assert "--root: profile scenes generates its dataset" in done.output
    assert not Path("params.yaml").exists()


def test_parameters_of_the_users_own_are_kept() -> None:
    assert "kept" not in use("scenes") + use("tiny")
    Path("params.yaml").write_text("# mine\n" + Path("params.yaml").read_text())
    mine = Path("params.yaml").read_bytes()
    said = use("scenes")
    (kept,) = Path("artifacts").iterdir()
    assert kept.read_bytes() == mine
    assert f"the parameters before are in {kept}" in said
