"""Every stage, disturbed at its file operations, and the same command after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_disturbed_stage_says_what_is_wrong_and_then_ends_in_the_same_bytes(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--kills N` disturbs N times (ENOSPC, EIO, EACCES, SIGKILL), the stages in turn."""
    text = (ROOT / "profiles/tiny.yaml").read_text()
    text = text.replace("deeplabv3_resnet18", "tiny_student")
    text = text.replace("  source: train", "  architecture: tiny_teacher\n  source: train")
    (tmp_path / "params.yaml").write_text(text)
    limit, seed = str(pytestconfig.getoption("--kills")), "0"
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            ROOT / "tests/support/inject_faults.py",
            tmp_path,
            limit,
            seed,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with capsys.disabled():
        print(done.stdout.splitlines()[-1])
