"""The house: which room may know which, what stays unloaded, and where names come from."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "store": {"store"},
    "pipeline": {"pipeline", "store"},
    "stages": {"stages", "pipeline", "store"},
}
# The rooms of pipeline/, from the ground up, and which others each may import; what only the type
# checker imports counts, too.
ROOMS: dict[str, set[str]] = {
    "config": set(),
    "runtime": set(),
    "datasets": {"config"},
    "ops": set(),
    "losses": {"ops"},
    "models": {"config", "runtime", "datasets"},
    "extraction": {"config", "runtime", "datasets", "ops", "losses", "models"},
    "loading": {"config", "runtime", "datasets", "ops"},
    "memory": {"config", "runtime", "datasets", "ops", "loading"},
    "distillation": {"config", "runtime", "ops", "losses", "models", "loading", "memory"},
    "training": {"config", "runtime", "datasets", "models", "loading", "distillation"},
    "evaluation": {"runtime", "datasets", "models"},
    "report": {"config", "datasets", "models"},
    "benchmarks": {
        *("config", "runtime", "datasets", "ops", "losses", "models", "extraction", "loading"),
        *("memory", "distillation", "training", "evaluation", "report"),
    },
}
TEACHER = ("pipeline.models.teacher", "pipeline.extraction")
BANNED = ("utils", "helpers", "manager", "handler", "processor")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of every module a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_point_one_way(package: str) -> None:
    ours = set(MAY_IMPORT)
    for path in modules(package):
        tops = {name.split(".")[0] for name in imported(path)} & ours
        assert tops <= MAY_IMPORT[package], f"{path} imports {tops - MAY_IMPORT[package]}"
    assert modules(package)


def rooms_of(names: set[str]) -> set[str]:
    """The rooms that imported names lie in: `config` of pipeline.config.params.Params."""
    return {name.split(".")[1] for name in names if name.startswith("pipeline.")}


def test_pipeline_is_its_rooms() -> None:
    found = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir()}
    assert found - {"__pycache__"} == set(ROOMS)
    assert [path.name for path in (ROOT / "pipeline").glob("*.py")] == ["__init__.py"]


def test_rooms_stand_on_those_below() -> None:
    rooms = list(ROOMS)
    for place, (room, below) in enumerate(ROOMS.items()):
        assert below <= set(rooms[:place]), f"{room}: {below - set(rooms[:place])} is not below it"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may_and_nothing_else(room: str) -> None:
    found: set[str] = set()
    for path in modules(f"pipeline/{room}"):
        beside = rooms_of(imported(path)) - {room}
        assert beside <= ROOMS[room], f"{path} imports {beside - ROOMS[room]}"
        found |= beside
    assert found == ROOMS[room], f"{room} may import {ROOMS[room] - found}, and does not"


def test_packages_hold_a_docstring_and_no_names() -> None:
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("__init__.py"):
            assert len(ast.parse(path.read_text()).body) == 1, f"{path} holds more than a docstring"


def test_no_package_under_tests_hides_ours() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_store_never_names_torch() -> None:
    for path in modules("store"):
        assert "torch" not in {name.split(".")[0] for name in imported(path)}, path


def test_no_import_circle() -> None:
    paths = {module_name(path): path for package in MAY_IMPORT for path in modules(package)}
    graph = {name: imported(path) & set(paths) for name, path in paths.items()}
    for name, others in graph.items():
        # `from package import module` needs the module; the package is named on the way.
        others -= {other.rpartition(".")[0] for other in others}
        assert name not in others
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert done == set(graph)


def test_names_say_what_they_hold() -> None:
    for package in MAY_IMPORT:
        for path in modules(package):
            assert not any(banned in path.stem for banned in BANNED), path


def test_every_module_has_a_docstring() -> None:
    for package in MAY_IMPORT:
        for path in modules(package):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def run_fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_store_leaves_torch_unloaded() -> None:
    every = ", ".join(module_name(path) for path in modules("store"))
    assert run_fresh(f"import sys, {every}; print('torch' in sys.modules)") == "False"


def test_the_train_stage_leaves_the_teacher_unloaded() -> None:
    """After a whole training, too: tests/stages/test_train.py."""
    code = f"import sys, stages.train; print(any(name in sys.modules for name in {TEACHER}))"
    assert run_fresh(code) == "False"


def test_help_leaves_torch_unloaded() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from stages.cli import main;"
        "r = CliRunner().invoke(main, ['--help']); assert r.exit_code == 0, r.output;"
        "print('torch' in sys.modules)"
    )
    assert run_fresh(code) == "False"


@pytest.mark.parametrize("stage", ["fingerprint", "prepare", "command", "progress", "work"])
def test_stages_without_a_network_leave_torch_unloaded(stage: str) -> None:
    assert run_fresh(f"import sys, stages.{stage}; print('torch' in sys.modules)") == "False"


def test_commands_import_what_is_shared_and_not_each_other() -> None:
    for path in modules("stages"):
        beside = {name for name in imported(path) if name.startswith("stages.")}
        allowed = {f"stages.{name}" for name in ("command", "inference", "progress", "work")}
        if path.stem == "train":
            allowed |= {"stages.many"}  # its --all
        found = {name for name in beside if name.count(".") == 1}
        assert found <= allowed, f"{path} imports {found - allowed}"


def test_every_command_is_there() -> None:
    from stages.cli import COMMANDS

    for name in COMMANDS:
        assert importlib.util.find_spec(f"stages.{name}") is not None
        assert "def command(" in (ROOT / "stages" / f"{name}.py").read_text()


def test_stage_commands_are_thin() -> None:
    for path in modules("stages"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                size = node.end_lineno - node.lineno + 1  # type: ignore[operator]
                assert size <= 80, f"{path}: {node.name} has {size} lines"
