"""Networks by import path: what a factory may return, and what files may not call."""

import copy
import hashlib
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from pipeline.config.params import Params, write_params
from pipeline.datasets.classes import class_table
from pipeline.datasets.index import Index
from pipeline.extraction.load import JobFiles
from pipeline.models.network import build_network, predict
from pipeline.models.students import load_student, save_student
from pipeline.models.teacher import TeacherCard, build_teacher, load_teacher, save_teacher
from store.files import write_json

MODULE = """
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from pipeline.models.network import Network, Output

open("called", "a").close()


class Pair(NamedTuple):
    logits: torch.Tensor
    features: torch.Tensor


class Net(nn.Module):
    def __init__(self, num_classes, returns, stride=8):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, stride, stride), nn.ReLU())
        self.classifier = nn.Conv2d(6, num_classes, 1)
        self.returns = returns

    def forward(self, image):
        features = self.body(image)
        return self.returns(self.classifier(features), features, image.shape[-2:])


class Own(Network):
    stride, feature_channels = 8, 6

    def __init__(self, num_classes):
        super().__init__()
        self.network = Net(num_classes, lambda logits, x, size: Output(logits, x, None))

    def forward(self, image):
        return self.network(image)


def whole(logits, size):
    return functional.interpolate(logits, size, mode="bilinear")


def pair(n): return Net(n, lambda logits, features, size: (logits, features))
def named(n): return Net(n, lambda logits, features, size: Pair(logits, features))
def full(n): return Net(n, lambda a, b, size: {"logits": whole(a, size), "features": b})
def alone(n): return Net(n, lambda logits, features, size: logits)
def odd(n): return Net(n, lambda logits, features, size: (logits, features[..., 1:]))
def flat(n): return Net(n, lambda logits, features, size: (logits, features.mean((2, 3))))
def fewer(n): return pair(n - 1)
def text(n): return "a network"
number = 5
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the working folder, which a console script has not on its path."""
    (tmp_path / "mynets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "mynets", raising=False)


@pytest.mark.parametrize("factory", ["pair", "named", "full", "alone", "Own"])
def test_whatever_a_module_returns_its_outputs_lie_at_the_features(factory: str) -> None:
    layer = "body" if factory == "alone" else None
    network = build_network(f"mynets:{factory}", 5, feature_layer=layer)
    assert (network.stride, network.feature_channels) == (8, 6)
    assert network.architecture == f"mynets:{factory}"
    output = copy.deepcopy(network)(torch.randn(2, 3, 40, 64))
    assert output.logits.shape == (2, 5, 5, 8)
    assert output.features.shape == (2, 6, 5, 8)
    output.logits.sum().backward()
    image = torch.randint(0, 256, (1, 3, 37, 51), dtype=torch.uint8)
    assert predict(network, image, "float32").shape == (1, 37, 51)


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("nowhere:make", None, "No module named 'nowhere'; expected one that is installed, or"),
        ("nowhere.nets:make", None, "No module named 'nowhere'; expected one that is installed"),
        ("mynets:absent", None, r"mynets\.py: .*absent"),
        ("mynets:number", None, r"mynets\.py: 5 cannot be called"),
        ("mynets:text", None, "expected a torch.nn.Module; found str"),
        ("mynets:alone", None, "returns Tensor; expected logits and features"),
        ("mynets:alone", "neck", "feature_layer: Net has no neck"),
        ("mynets:flat", None, "returns tuple; expected logits and features"),
        ("mynets:odd", None, "features of an image of 256x256 are 32x31"),
        ("mynets:fewer", None, "returns 4 classes; expected 5"),
        ("mynets:Own", "body", "a Network has its features; leave feature_layer out"),
    ],
)
def test_what_is_no_network_is_one_message(name: str, layer: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=f"architecture {name}: .*{message}"):
        build_network(name, 5, feature_layer=layer)


def test_code_makes_its_own_weights() -> None:
    with pytest.raises(ValueError, match="encoder_weights: expected none with architecture mynets"):
        build_network("mynets:pair", 5, "imagenet")


def test_a_file_calls_no_code_that_params_do_not_name(tiny_params: Params, tmp_path: Path) -> None:
    """A trained student names its architecture; whoever wrote the file chose it."""
    change = {"architecture": "mynets:alone", "feature_layer": "body"}
    run = tiny_params.students["r18_ce"].model_copy(update=change)
    student = build_network("mynets:alone", 3, feature_layer="body").eval()
    save_student(student, run, class_table("abc"), tmp_path / "model.pt")
    sys.modules.pop("mynets")
    (tmp_path / "called").unlink()
    with pytest.raises(ValueError, match=r"model\.pt: .*mynets:alone, .*params.yaml does not name"):
        load_student(tmp_path / "model.pt", tiny_params.architectures)
    assert "mynets" not in sys.modules
    assert not (tmp_path / "called").exists()
    loaded = load_student(tmp_path / "model.pt", {"mynets:alone"}).network
    image = torch.randint(0, 256, (1, 3, 37, 51), dtype=torch.uint8)
    assert torch.equal(predict(loaded, image, "float32"), predict(student, image, "float32"))


def test_a_card_calls_no_code_either(
    tiny_params: Params, tiny_index: Index, tmp_path: Path
) -> None:
    change = {"architecture": "mynets:alone", "feature_layer": "body"}
    settings = tiny_params.teacher.model_copy(update=change)
    files = JobFiles(tmp_path / "i.json", tmp_path / "t.pt", tmp_path / "params.yaml", "cpu")
    tiny_index.write(files.index)
    teacher = build_teacher(settings, tiny_index.class_names)
    sha256 = save_teacher(teacher, files.teacher)
    names = list(tiny_index.class_names)
    card = TeacherCard("mynets:alone", names, "train", sha256, {}, 0, 0.0, feature_layer="body")
    write_json(asdict(card), tmp_path / "t.json")
    sys.modules.pop("mynets")
    write_params(tiny_params, files.params)
    with pytest.raises(ValueError, match=r"t\.json: .*params.yaml does not name it"):
        files.load()
    assert "mynets" not in sys.modules
    write_params(tiny_params.model_copy(update={"teacher": settings}), files.params)
    spec = files.load().spec
    assert (spec.stride, spec.feature_channels) == (8, 6)
    source = tmp_path / "mynets.py"
    code = {"sha256": hashlib.sha256(source.read_bytes()).hexdigest(), "feature_layer": "body"}
    assert spec.identity["teacher"]["code"] == code


def test_a_teacher_that_calls_a_module_network_comes_back(tmp_path: Path) -> None:
    """As training programs call what they put a network into, whose name a file may have."""
    network = build_network("mynets:Own", 5)
    for prefix in ("", "network."):
        state = {f"{prefix}{name}": x for name, x in network.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "teacher.pt")
        found = load_teacher(tmp_path / "teacher.pt", 5, "mynets:Own").state_dict()
        assert all(torch.equal(x, found[name]) for name, x in network.state_dict().items())
