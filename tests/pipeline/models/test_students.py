"""Students: sizes at their stride, the auxiliary head, and files that come back as they went."""

import copy
from pathlib import Path

import pytest
import torch

from pipeline.config.architectures import ARCHITECTURES
from pipeline.config.params import Params
from pipeline.datasets.classes import class_table
from pipeline.models.network import build_network, predict
from pipeline.models.students import load_student, read_saved, save_student
from pipeline.runtime.checkpoint import save_torch
from pipeline.runtime.rng import seed_torch

# Larger members of a family that is there already.
NETWORKS = [name for name in ARCHITECTURES if not name.endswith(("_b4", "_lite1", "_lite2"))]


@pytest.mark.parametrize("architecture", NETWORKS)
def test_outputs_lie_at_the_stride(architecture: str) -> None:
    student = build_network(architecture, 5).train()
    stride = 4 if architecture.startswith(("upernet", "segformer")) else 8
    stride = 16 if architecture == "deeplabv3_mobilenet_v3_large" else stride
    output = student(torch.randn(2, 3, 48, 64))
    assert student.stride == stride
    assert output.logits.shape == (2, 5, 48 // stride, 64 // stride)
    assert output.features.shape == (2, student.feature_channels, *output.logits.shape[2:])
    if ("resnet" in architecture and stride == 8) or stride == 16:
        assert output.auxiliary is not None
        assert output.auxiliary.shape == output.logits.shape
    else:
        assert output.auxiliary is None
    assert student.has_auxiliary == (output.auxiliary is not None)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_keep_the_memory_format_they_fix(name: str) -> None:
    """Also after weights of another format, a copy, and a change of dtype or device."""
    network = build_network(name, 5)
    state = network.state_dict()
    network.load_state_dict({key: x.contiguous() for key, x in state.items()})
    for one in (network, copy.deepcopy(network), copy.deepcopy(network).double()):
        kernels = [x for x in one.parameters() if x.ndim == 4]
        assert kernels
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in kernels)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert network.normalise(images).is_contiguous(memory_format=torch.channels_last)


def test_pspnet_uses_every_encoder_stage() -> None:
    student = build_network("pspnet_resnet18", 5)
    assert student.encoder.out_channels[-1] == 512
    output = student(torch.randn(2, 3, 32, 32))
    output.logits.sum().backward()
    assert all(p.grad is not None for p in student.encoder.layer4.parameters())


@pytest.mark.parametrize("architecture", NETWORKS)
def test_a_saved_student_predicts_the_same(
    architecture: str, tiny_params: Params, tmp_path: Path
) -> None:
    seed_torch(0, "test")
    student = build_network(architecture, 5).eval()
    image = torch.randint(0, 256, (1, 3, 37, 51), dtype=torch.uint8)
    before = predict(student, image, "float32")
    run = tiny_params.students["r18_ce"].model_copy(update={"architecture": architecture})
    state = student.state_dict()
    save_student(student, run, class_table("abcde"), tmp_path / "model.pt")
    assert student.state_dict().keys() == state.keys()
    saved = load_student(tmp_path / "model.pt")
    loaded, precision = saved.network, saved.precision
    assert loaded.num_parameters == student.num_parameters
    assert loaded.num_parameters == sum(x.numel() for x in loaded.parameters())
    after = predict(loaded, image, precision)
    assert torch.equal(before, after)
    assert before.shape == (1, 37, 51)


def test_same_seed_same_weights() -> None:
    states = []
    for _ in range(2):
        seed_torch(7, "student")
        states.append(build_network("deeplabv3_resnet18", 3).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_missing_student_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        load_student(tmp_path / "model.pt")


@pytest.mark.parametrize("content", ["damage", "a teacher", "a precision that is none"])
def test_what_is_no_student_says_what_to_do(
    content: str, tiny_params: Params, tmp_path: Path
) -> None:
    path, settings = tmp_path / "model.pt", tiny_params.students["r18_ce"]
    if content == "a teacher":
        save_torch({"state_dict": {}}, path)
    elif content == "a precision that is none":
        save_student(build_network(settings.architecture, 3), settings, class_table("abc"), path)
        save_torch(read_saved(path) | {"precision": "load"}, path)
    else:
        save_student(build_network(settings.architecture, 3), settings, class_table("abc"), path)
        altered = bytearray(path.read_bytes())
        altered[len(altered) // 2] ^= 1
        path.write_bytes(altered)
    with pytest.raises(ValueError, match=r"model\.pt: .*dvc repro -f -s train@RUN"):
        load_student(path)


def test_padding_colour_is_nearly_zero_after_normalisation() -> None:
    colour = torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1)
    assert build_network("deeplabv3_resnet18", 2).normalise(colour).abs().max() < 0.01
