"""What every command shares: an example, exit codes, quiet, completion, nothing heavy for help."""

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from stages.cli import COMMANDS, main
from stages.command import EXIT_INTERRUPTED, Interruption, StageCommand
from stages.progress import progress_of_total, say

ROOT = Path(__file__).parents[2]


def walk(group: click.Group, *words: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from walk(command, *words, name)
        else:
            yield " ".join((*words, name)), command


LEAVES = dict(walk(main))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "profiles/tiny.yaml", tmp_path / "params.yaml")
    for name in ("tiny.json", "tiny.audit.json", "other.json"):
        (tmp_path / "artifacts/manifests").mkdir(parents=True, exist_ok=True)
        (tmp_path / "artifacts/manifests" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", LEAVES)
def test_help_ends_with_an_example_that_is_a_command_line(words: str) -> None:
    done = CliRunner().invoke(main, [*words.split(), "--help"])
    assert done.exit_code == 0
    title, _, example = done.output.rstrip().rpartition("Example:\n  ")
    assert title, "no example"
    first, *rest = shlex.split(example.partition(" > ")[0])
    assert (first, rest[: len(words.split())]) == ("cirkd", words.split())
    LEAVES[words].make_context(words, rest[len(words.split()) :])


@pytest.mark.parametrize("words", [words for words in LEAVES if words != "repro"])
def test_a_line_that_is_none_has_exit_code_2(words: str) -> None:
    done = CliRunner().invoke(main, [*words.split(), "--no-such-option"])
    assert done.exit_code == 2
    assert "--no-such-option" in done.stderr


def end_as(error: BaseException | None) -> click.testing.Result:
    @click.command(cls=StageCommand, example="")
    def command() -> None:
        if error is not None:
            raise error

    return CliRunner().invoke(command)


def test_exit_codes_say_how_a_command_ended() -> None:
    assert end_as(None).exit_code == 0
    assert end_as(ValueError("wrong")).exit_code == 1
    assert end_as(click.UsageError("wrong")).exit_code == 2
    for error in (KeyboardInterrupt(), click.Abort()):
        stopped = end_as(error)
        assert stopped.exit_code == EXIT_INTERRUPTED == 3
        assert "run the same command to go on" in stopped.stderr
    with pytest.raises(SystemExit, match="3"):
        Interruption.exit("all of it")


def test_every_command_ends_as_the_shared_class_does() -> None:
    assert {type(command) for command in LEAVES.values()} == {StageCommand}


@pytest.mark.parametrize(("dvc", "ours"), [(0, 0), (255, 1), (254, 2), (252, 3)])
def test_the_exit_code_of_dvc_is_one_of_ours(
    dvc: int, ours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, dvc)

    monkeypatch.setattr("stages.repro.prepare_dvc", lambda: (["dvc"], {}))
    monkeypatch.setattr("stages.repro.subprocess.run", run)
    assert CliRunner().invoke(main, ["repro"]).exit_code == ours


def test_quiet_leaves_facts_and_errors(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIRKD_QUIET", raising=False)
    run = CliRunner().invoke
    words = ["profile", "use", "tiny"]
    assert "is now profile tiny" in run(main, words).output
    assert run(main, ["--quiet", *words]).output == ""
    assert run(main, words, env={"CIRKD_QUIET": "1"}).output == ""
    assert "no such profile" in run(main, ["--quiet", "profile", "use", "nothing"]).stderr
    assert "* tiny" in run(main, ["--quiet", "profile", "list"]).stdout
    assert "CIRKD_QUIET" not in os.environ


def test_quiet_shows_no_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIRKD_QUIET", "1")
    with progress_of_total("train", "steps") as show:
        show(1, 2)
        show(2, 2)
    say("done")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("done", "left"), [(3, "nothing is left to do"), (1, "2 are left")])
def test_what_is_there_already_is_said(
    done: int, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_of_total("extract", "views") as show:
        show(done, 3)
    assert capsys.readouterr().err == f"extract: {done} of 3 views are there; {left}\n"


def complete(words: list[str], begun: str) -> list[str]:
    shell = ShellComplete(main, {}, "cirkd", "_CIRKD_COMPLETE")
    return [item.value for item in shell.get_completions(words, begun) if item.type == "plain"]


def test_a_shell_completes_students_profiles_and_manifests(project: Path) -> None:
    assert complete([], "fing") == ["fingerprint"]
    assert complete(["train"], "r18_c") == ["r18_ce", "r18_cirkd"]
    assert complete(["train", "--params", "profiles/scenes.yaml"], "r") == ["r18_ce", "r18_cirkd"]
    assert complete(["profile", "use"], "camvid-") == ["camvid-lite", "camvid-small"]
    manifests = ["artifacts/manifests/other.json", "artifacts/manifests/tiny.json"]
    for words in (["train", "r18_ce"], ["store", "info"], ["audit", "i.json", "t.pt"]):
        assert complete(words, "art") == manifests, words
    assert complete(["store", "info"], "elsewhere/") == []  # files: the shell's own
    (project / "params.yaml").write_text("[")
    assert complete(["train"], "r") == []


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"report"}))
def test_help_and_completion_leave_torch_unloaded(name: str) -> None:
    code = f"import sys, stages.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("no_colour", [{}, {"NO_COLOR": "1"}])
def test_colours_are_for_terminals_that_want_them(no_colour: dict[str, str]) -> None:
    code = "from stages.progress import progress\nwith progress('t', 2, 'steps') as step: step(1)"
    environment = {**os.environ, "TERM": "xterm-256color", **no_colour}
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", code]
    try:
        subprocess.run(command, cwd=ROOT, env=environment, stderr=end, check=True)
        shown = os.read(terminal, 100_000).decode()
    finally:
        os.close(end)
        os.close(terminal)
    assert "1/2" in shown
    assert bool(re.search(r"\x1b\[([0-9;]*;)?[349][0-9][;m]", shown)) != bool(no_colour)
