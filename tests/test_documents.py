"""The documents: what they show is what the code does, and every command in them runs."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import BaseModel

from pipeline.config import augment, params, training
from pipeline.config.datasets import DATASETS, ExternalConfig, dataset_module
from pipeline.config.methods import METHODS, TERMS
from stages.cli import COMMANDS, main
from store.arrays import arrays_table
from store.encodings.registry import ENCODINGS
from store.schema import SCHEMA_VERSION

ROOT = Path(__file__).parents[1]
OWN_TEST = (
    ROOT / "docs/extending.md"
)  # its blocks build on each other, and have a test of their own
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
COMMENT = re.compile(r"<!-- (not run: .+|output) -->")
# Document, first words of the block. Why stands in a comment above each.
NOT_RUN = {
    ("README.md", "pip install -e . && dvc repro"),
    ("README.md", "pip install -e '.[test]' && pytest"),
    ("README.md", "pip install -e '.[docs]' && mkdocs build --strict -f .mkdocs.yml"),
    ("CONTRIBUTING.md", "pip install -e '.[test,docs]'"),
    ("CONTRIBUTING.md", "ruff format . && ruff check . && mypy"),
    ("docs/configuration.md", "cirkd profile use camvid-small --root /data/CamVid"),
    ("docs/configuration.md", "CIRKD_DEVICE=cuda CIRKD_WORKERS=8 dvc repro"),
    ("docs/configuration.md", "torchrun --nproc_per_node 4 -m stages.train"),
    ("docs/configuration.md", 'eval "$(_CIRKD_COMPLETE=bash_source cirkd)"'),
    ("docs/index.md", "pip install -e . && dvc repro"),
    ("docs/using.md", "cirkd export artifacts/profiles/tiny"),
    ("docs/performance.md", "cirkd benchmark portable --out portable.json"),
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, and the comment above it."""

    where: str
    language: str
    text: str
    comment: str


def blocks(document: Path) -> Iterator[Block]:
    lines = iter(enumerate(document.read_text().splitlines(), start=1))
    comment = ""
    for number, line in lines:
        if line.startswith("```"):
            body = []
            for _, inner in lines:
                if inner == "```":
                    break
                body.append(inner)
            where = f"{document.relative_to(ROOT)}:{number}"
            yield Block(where, line[3:], "\n".join(body) + "\n", comment)
        found = COMMENT.fullmatch(line)
        comment = found.group(1) if found else ""


def all_blocks() -> list[Block]:
    return [block for path in DOCUMENTS if path != OWN_TEST for block in blocks(path)]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def load(name: str) -> ModuleType:
    """Another test module, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 120


def test_these_blocks_are_not_run() -> None:
    left = [block for block in all_blocks() if block.comment.startswith("not run: ")]
    assert len(left) == len(NOT_RUN)
    for block in left:
        document = block.where.partition(":")[0]
        assert any(d == document and block.text.startswith(start) for d, start in NOT_RUN), block
    for block in all_blocks():
        assert block.language in {"bash", "python", "text", "yaml"}, block.where


def command_lines() -> list[tuple[str, list[str]]]:
    lines = []
    for block in all_blocks():
        if block.language == "bash":
            for part in re.split(r"\n|&&", block.text):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words.pop(0)
                if words:
                    lines.append((block.where, words))
    return lines


def test_every_command_has_the_name_and_the_options_that_documents_give_it() -> None:
    """Also of those that are not run; no command does anything here."""
    seen = 0
    for where, words in command_lines():
        if words[0] != "cirkd":
            continue
        command: click.Command = main
        arguments = words[1:]
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), arguments[0])
            assert found is not None, f"{where}: no command {' '.join(words)}"
            command, arguments = found, arguments[1:]
        command.make_context("cirkd", arguments)
        seen += 1
    assert seen > 5


@pytest.mark.parametrize(
    ("group", "page"), [("benchmark", "performance"), ("store", "configuration")]
)
def test_a_page_names_every_command_of_a_group(group: str, page: str) -> None:
    found = main.get_command(click.Context(main), group)
    assert isinstance(found, click.Group)
    assert {
        name for name in found.commands if f"`{name}`" not in text_of(f"docs/{page}.md")
    } == set()


def test_the_configuration_page_names_every_parameter() -> None:
    page = text_of("docs/configuration.md")
    models = {
        model
        for module in (params, training, augment)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
    }
    for model in models:
        for field in model.model_fields:
            assert re.search(rf"`{field}`|\b{field}: ", page), f"{model.__name__}.{field}"
    for name in [*METHODS, *TERMS]:
        assert f"`{name}`" in page, name
    for profile in ROOT.glob("profiles/*.yaml"):
        assert f"`{profile.stem}`" in page, profile


def test_the_datasets_page_names_every_kind_and_key() -> None:
    page = text_of("docs/datasets.md")
    for kind in DATASETS:
        own = dataset_module(kind).Config.model_fields.keys() - ExternalConfig.model_fields.keys()
        for name in (kind, *own):
            assert f"`{name}`" in page, f"{kind}.{name}"


def test_the_configuration_page_names_every_environment_variable() -> None:
    page = text_of("docs/configuration.md")
    sources = (path.read_text() for path in ROOT.glob("stages/*.py"))
    variables = {name for source in sources for name in re.findall(r"\"(CIRKD_\w+)\"", source)}
    assert len(variables) > 4
    assert {name for name in variables if f"`{name}`" not in page} == set()


def test_methods_have_the_weights_that_the_configuration_page_gives() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text_of("docs/configuration.md"), re.MULTILINE)
    table = dict(rows)
    for method, terms in METHODS.items():
        shown = ", ".join(f"`{term}` {weight:g}" for term, weight in terms.items()) or "none"
        assert table[method] == shown, method


def test_the_format_page_follows_the_code() -> None:
    page = text_of("docs/store-format.md")
    assert arrays_table() in page, f"expected:\n{arrays_table()}"
    assert f"`SCHEMA_VERSION = {SCHEMA_VERSION}`" in page
    for version in range(1, SCHEMA_VERSION + 1):
        assert re.search(rf"^\| {version} \| ", page, re.MULTILINE), version
    section = page[page.index("## Encodings") : page.index("## The journal")]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(ENCODINGS)


def test_the_architecture_page_shows_the_arrows_that_a_test_holds() -> None:
    rooms = load("test_architecture").ROOMS
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text_of("docs/architecture.md"), re.M)
    shown = {room: re.findall(r"`(\w+)`", below) for room, below in rows if room in rooms}
    expected = {room: [other for other in rooms if other in below] for room, below in rooms.items()}
    assert shown == expected
    assert list(shown) == list(rooms)


def test_every_room_has_a_page_of_reference() -> None:
    rooms = load("test_architecture").ROOMS
    pages = {path.stem for path in ROOT.glob("docs/reference/pipeline/*.md")}
    assert pages == set(rooms)
    navigation = text_of(".mkdocs.yml")
    for page in ROOT.glob("docs/**/*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}" in navigation, page


def test_every_room_is_in_the_tree_of_the_readme() -> None:
    readme = text_of("README.md")
    for room in load("test_architecture").ROOMS:
        assert re.search(rf"^  {room}/ ", readme, re.MULTILINE), room
    for command in COMMANDS:
        assert (ROOT / f"stages/{command}.py").is_file(), command


def test_files_and_names_that_documents_point_to_exist() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/**/*.py")]
    for document in DOCUMENTS:
        text = document.read_text()
        for name, symbol in re.findall(r"`([\w/]+\.py)`(?:: `(\w+)`)?", text):
            found = [file for file in files if f"/{file}".endswith(f"/{name}")]
            assert found, f"{document}: {name}"
            assert not symbol or symbol in text_of(found[0]), f"{document}: {symbol} in {name}"
        for link in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (document.parent / link).exists(), f"{document}: {link}"


def test_pages_fetch_nothing_from_elsewhere() -> None:
    assert "  font: false\n" in text_of(".mkdocs.yml")
    for page in ROOT.glob("docs/**/*.md"):
        assert not re.search(r"!\[[^\]]*\]\(http|<(img|script|iframe)", page.read_text()), page


def test_the_citation_is_of_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)
    assert version is not None
    assert f"version: {version.group(1)}\n" in text_of("CITATION.cff")
    assert f"## {version.group(1)}\n" in text_of("CHANGELOG.md")


def test_three_packages_are_typed() -> None:
    assert all(
        (ROOT / package / "py.typed").is_file() for package in ("pipeline", "stages", "store")
    )


def run(folder: Path, command: list[str], text: str) -> str:
    """Feed a block to its interpreter, with `cirkd` and `dvc` of this Python; return its output."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "CIRKD_WORKERS": "0",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


INTERPRETERS = {"bash": ["bash", "-e"], "python": [sys.executable, "-"]}


@pytest.mark.slow
def test_every_block_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    """Where the profile `tiny` has run, document by document, each with that to start from."""
    route = load("test_route")
    project = route.copy_project(tmp_path / "project")
    run(project, INTERPRETERS["bash"], "cirkd profile use tiny\ncirkd repro\n")
    printed, num_run = "", 0
    for document in DOCUMENTS:
        if document == OWN_TEST:
            continue
        folder = shutil.copytree(project, tmp_path / document.stem)
        for block in blocks(document):
            if block.comment == "output":
                assert printed == block.text, block.where
            elif block.language in INTERPRETERS and not block.comment:
                printed = run(folder, INTERPRETERS[block.language], block.text)
                num_run += 1
        shutil.rmtree(folder)
    assert num_run > 5
