"""Checkpoints: all parts or none, and a hash that sees weights alone."""

import errno
import io
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.runtime.checkpoint import (
    GlobalRng,
    SavedGenerator,
    Stateful,
    hash_weights,
    load_checkpoint,
    load_torch,
    load_weights,
    save_checkpoint,
    save_torch,
)

CPU = torch.device("cpu")


def test_parts_come_back(tmp_path: Path) -> None:
    net, generator = nn.Linear(2, 2), torch.Generator().manual_seed(5)
    parts = {"net": net, "chance": GlobalRng(CPU), "generator": SavedGenerator(generator)}
    save_checkpoint(tmp_path / "last.pt", 7, parts)
    expected = torch.rand(3), torch.rand(3, generator=generator), net.weight.clone()
    with torch.no_grad():
        net.weight.zero_()
    assert load_checkpoint(tmp_path / "last.pt", parts) == 7
    found = torch.rand(3), torch.rand(3, generator=generator), net.weight
    assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize(("former", "name"), [("chance", "rng"), ("adversary", "discriminator")])
def test_a_part_is_found_under_its_former_name(former: str, name: str, tmp_path: Path) -> None:
    saved, loaded = nn.Linear(2, 2), nn.Linear(2, 2)
    save_checkpoint(tmp_path / "last.pt", 7, {former: saved})
    load_checkpoint(tmp_path / "last.pt", {name: loaded})
    assert torch.equal(saved.weight, loaded.weight)


def test_no_checkpoint_is_step_zero(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "last.pt", {"net": nn.Linear(1, 1)}) == 0


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_torch({"step": 1}, path)
    with pytest.raises((TypeError, AttributeError)):
        save_torch({"step": (number for number in range(3))}, path)
    assert torch.load(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_is_named_not_the_archive_without_an_end(tmp_path: Path) -> None:
    """torch's own error, of the archive, comes later and hides the first."""

    class FullDisk(io.BytesIO):
        whole = True

        def write(self, content: bytes) -> int:
            if self.whole and self.tell():
                self.whole = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.pt")
            return super().write(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: FullDisk())
        with pytest.raises(OSError, match="No space left on device"):
            save_torch({"step": torch.zeros(5)}, tmp_path / "last.pt")


@pytest.fixture
def half_done(tmp_path: Path) -> tuple[Path, dict[str, nn.Module]]:
    parts = {"net": nn.Linear(40, 40), "other": nn.Linear(3, 3)}
    save_checkpoint(tmp_path / "last.pt", 7, parts)
    return tmp_path / "last.pt", parts


def test_a_flipped_bit_never_becomes_other_weights(
    half_done: tuple[Path, dict[str, nn.Module]],
) -> None:
    path, parts = half_done
    whole, saved = path.read_bytes(), hash_weights(parts["net"].state_dict())
    rng, refusals = random.Random(0), []
    for place in rng.sample(range(len(whole)), 100):
        altered = bytearray(whole)
        altered[place] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        try:
            # What nothing reads, the padding between records say, may be altered unnoticed.
            assert load_checkpoint(path, parts) == 7
            assert hash_weights(parts["net"].state_dict()) == saved
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    for message in refusals:
        assert f"{path}: expected a checkpoint" in message
        assert "delete the file to train from the start" in message


@pytest.mark.parametrize("num_bytes", [0, 1, 100, 5000, -1])
def test_a_checkpoint_that_was_cut_off_says_what_to_do(
    half_done: tuple[Path, dict[str, nn.Module]], num_bytes: int
) -> None:
    path, parts = half_done
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match="delete the file"):
        load_checkpoint(path, parts)


@pytest.mark.parametrize(
    "parts", [{"absent": nn.Linear(3, 3)}, {"net": nn.Linear(2, 2)}, {"net": GlobalRng(CPU)}]
)
def test_a_checkpoint_of_other_parts_says_what_to_do(
    half_done: tuple[Path, dict[str, nn.Module]], parts: dict[str, Stateful]
) -> None:
    with pytest.raises(ValueError, match=r"(?s)last\.pt: .*of this training.*delete the file"):
        load_checkpoint(half_done[0], parts)


def test_a_file_of_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    value = {"weight": torch.rand(3)}
    torch.save(value, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load_torch(tmp_path / "old.pt", "weights", "")["weight"], value["weight"])


def test_the_hash_sees_weights_and_nothing_else() -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)}
    before = hash_weights(state)
    assert hash_weights(dict(reversed(state.items()))) == before
    assert hash_weights({**state, "a": state["a"].clone()}) == before
    assert hash_weights({**state, "a": state["a"].view(3, 2)}) != before
    assert hash_weights({**state, "a": state["a"].double()}) != before
    changed = state["a"].clone()
    changed[0, 0] = 1e-7
    assert hash_weights({**state, "a": changed}) != before


@pytest.mark.parametrize("wrapper", ["none", "model", "state_dict", "safetensors"])
def test_weights_come_out_of_what_programs_put_around_them(wrapper: str, tmp_path: Path) -> None:
    state = {"module.a.weight": torch.ones(2, 3), "module.a.bias": torch.zeros(3)}
    path = tmp_path / f"weights.{'safetensors' if wrapper == 'safetensors' else 'pth'}"
    if wrapper == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if wrapper == "none" else {wrapper: state, "epoch": 3}, path)
    loaded = load_weights(path, "weights", "give others")
    assert set(loaded) == {"a.weight", "a.bias"}
    assert torch.equal(loaded["a.weight"], torch.ones(2, 3))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_holds_no_weights_says_what_to_do(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"x" * 40)
    with pytest.raises(ValueError, match=rf"weights\.{suffix}.*give others"):
        load_weights(path, "weights", "give others")
    torch.save({"epoch": 3}, tmp_path / "notes.pth")
    with pytest.raises(ValueError, match="no table of tensors"):
        load_weights(tmp_path / "notes.pth", "weights", "give others")
