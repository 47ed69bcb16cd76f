"""A store behind a real S3 server on this machine: adopted, verified, damaged, trained from."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from stages.cli import main
from store.cache import CACHE
from store.layout import METADATA
from store.manifest import Manifest
from store.reader import Reader, open_store

ROOT = Path(__file__).parents[2]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """A server in a process of its own; yields the environment in which it is reached."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = ("127.0.0.1", int(port))
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as running:
        deadline = time.monotonic() + 120
        while not _answers(address):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        running.terminate()


def _answers(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


@pytest.fixture
def url(server: dict[str, str], tiny_store: Reader, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny store in a bucket of its own."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(NUMBERS)}"
    remote = fsspec.filesystem("s3")
    remote.mkdir(bucket)
    remote.put(tiny_store.path, f"{bucket}/stores/tiny", recursive=True)
    return f"s3://{bucket}/stores/tiny"


def cirkd(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def fresh_cirkd(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "stages.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,  # a loader process that hangs after its fork would never end
    )


@pytest.fixture
def adopted(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    done = cirkd("store", "adopt", url, "remote.json")
    assert done.exit_code == 0, done.output
    return tmp_path / "remote.json"


def test_a_remote_store_is_adopted_verified_and_its_damage_found(
    adopted: Path, manifest: Path, url: str
) -> None:
    one, other = Manifest.read(adopted), Manifest.read(manifest)
    assert (one.path, one.digest, one.fingerprint) == (url, other.digest, other.fingerprint)
    assert cirkd("store", "verify", adopted).output == "whole\n"
    remote = fsspec.filesystem("s3")
    (file,) = remote.glob(f"{url}/features/c.1.*")
    content = remote.cat_file(file)
    remote.pipe_file(file, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    remote.rm_file(remote.glob(f"{url}/labels/c.0.*")[0])
    damaged = cirkd("store", "verify", adopted, "--json")
    assert damaged.exit_code == 1
    findings = json.loads(damaged.output)["findings"]
    assert [(one["array"], one["unit"]) for one in findings] == [("labels", 0), ("features", 1)]
    refused = cirkd(*train(adopted, "spoiled"), "--workers", 0)
    assert refused.exit_code == 1
    assert "Traceback" not in refused.output
    assert f"the file is missing: {url}/labels" in refused.output
    assert "copy the whole store there again" in refused.output


@pytest.mark.parametrize("chain", ["", "filecache::"])
def test_a_remote_store_reads_like_the_local_one(
    url: str, chain: str, tiny_store: Reader, tmp_path: Path
) -> None:
    options = {"filecache": {"cache_storage": str(tmp_path / "blocks")}} if chain else None
    remote = open_store(chain + url, tiny_store.spec.identity, options)
    for name in tiny_store.arrays:
        np.testing.assert_array_equal(remote.column(name), tiny_store.column(name))


def train(manifest: Path, folder: str) -> list[object]:
    params = ["--params", ROOT / "profiles/tiny.yaml", "--device", "cpu"]
    return ["train", "r18_cirkd", manifest, folder, *params]


@pytest.mark.slow
def test_a_student_of_a_remote_store_has_the_same_weights(
    adopted: Path, manifest: Path, tmp_path: Path
) -> None:
    """Two forks of a process that has read the store read it, too, and share their copies."""
    assert cirkd(*train(manifest, "local"), "--workers", 0).exit_code == 0
    done = fresh_cirkd(*train(adopted, "remote"), "--workers", 2, "--cache", "copies")
    assert done.returncode == 0, done.stderr
    local, remote = (torch.load(tmp_path / f"{name}/model.pt") for name in ("local", "remote"))
    weights = local["state_dict"]
    assert all(torch.equal(weights[name], remote["state_dict"][name]) for name in weights)
    (copies,) = (tmp_path / "copies" / CACHE).iterdir()
    original = Manifest.read(manifest)
    assert copies.name == original.digest
    kept = [file.relative_to(copies) for file in copies.rglob("*") if file.is_file()]
    assert {file.parts[0] for file in kept} >= {"image", "labels", "logits", "features"}
    assert not any(file.name == METADATA or "partial" in file.name for file in kept)
    for file in kept:
        assert (copies / file).read_bytes() == Path(original.path, file).read_bytes()


def test_a_server_that_is_not_there_is_a_message(
    adopted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    refused = fresh_cirkd("store", "verify", adopted)
    assert refused.returncode == 1
    assert "the store cannot be reached: s3://" in refused.stderr
    assert "what to do: check the URL" in refused.stderr
    assert "Traceback" not in refused.stderr
