"""torchvision's networks by parts, and the weights that torchvision and timm publish."""

import hashlib
import io
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import get_model, get_model_weights, resnet18

from pipeline.config.params import Params, TeacherConfig
from pipeline.models.network import build_network
from pipeline.models.published import load_backbone
from pipeline.models.teacher import TeacherError, build_teacher

NETWORKS = {
    # name: parameters that torchvision states for 21 classes, its features' channels
    "deeplabv3_resnet101": (60_996_202, 256),
    "deeplabv3_resnet50": (42_004_074, 256),
    "deeplabv3_mobilenet_v3_large": (11_029_328, 256),
    "fcn_resnet101": (54_314_346, 512),
    "lraspp_mobilenet_v3_large": (3_221_538, 168),
}
SMALLEST = "lraspp_mobilenet_v3_large"
CLASSIFIER = "classifier.low_classifier.weight"
VOC = ["background", *get_model_weights(SMALLEST)["DEFAULT"].meta["categories"][1:]]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_together_are_torchvisions_network(name: str) -> None:
    num_parameters, channels = NETWORKS[name]
    network = build_network(name, 21).eval()
    assert sum(x.numel() for x in network.parameters()) == num_parameters
    assert network.feature_channels == channels
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        output, whole = network(image), network.weights(image)
        torch.testing.assert_close(network.upsample(output.logits, (64, 96)), whole["out"])
        if "mobilenet" not in name:  # whose auxiliary head is brought to a coarser grid
            auxiliary = network.upsample(output.auxiliary_logits, (64, 96))
            torch.testing.assert_close(auxiliary, whole["aux"])


def test_logits_of_lraspp_are_linear_in_its_features() -> None:
    network = build_network(SMALLEST, 21).eval()
    head = network.weights.classifier
    with torch.no_grad():
        output = network(torch.randn(1, 3, 32, 48))
        weight = torch.cat([head.low_classifier.weight, head.high_classifier.weight], dim=1)
        bias = head.low_classifier.bias + head.high_classifier.bias
        logits = torch.nn.functional.conv2d(output.features, weight, bias)
    torch.testing.assert_close(output.logits, logits)


class Publisher:
    """A server on loopback, from which torchvision has its default weights of a network."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.served, self.cache = folder / "served", folder / "home/hub/checkpoints"
        self.served.mkdir()
        monkeypatch.setenv("TORCH_HOME", str(folder / "home"))
        self._monkeypatch = monkeypatch
        handler = partial(SimpleHTTPRequestHandler, directory=str(self.served))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def publish(self, state: dict[str, Tensor], name: str) -> str:
        """Serve weights in place of torchvision's; the name of their file, with its hash."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        file_name = f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        (self.served / file_name).write_bytes(content)
        url = f"http://127.0.0.1:{self._server.server_port}/{file_name}"
        self._monkeypatch.setattr(get_model_weights(name)["DEFAULT"].value, "url", url)
        return file_name

    def stop(self) -> None:
        """End the server; a second time does nothing."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    running = Publisher(tmp_path, monkeypatch)
    yield running
    running.stop()


@pytest.fixture
def settings(tiny_params: Params) -> TeacherConfig:
    change = {"source": "torchvision", "weights": "DEFAULT", "architecture": SMALLEST}
    return tiny_params.teacher.model_copy(update=change)


def test_published_weights_are_downloaded_once(
    publisher: Publisher, settings: TeacherConfig
) -> None:
    state = get_model(SMALLEST, weights=None, weights_backbone=None, num_classes=21).state_dict()
    file_name = publisher.publish(state, SMALLEST)
    teacher = build_teacher(settings, VOC)
    assert all(torch.equal(x, state[key]) for key, x in teacher.weights.state_dict().items())
    (publisher.served / file_name).unlink()
    publisher.stop()
    assert [path.name for path in publisher.cache.iterdir()] == [file_name]
    named = settings.model_copy(update={"weights": "COCO_WITH_VOC_LABELS_V1"})
    again = build_teacher(named, ["Background", *VOC[1:]])
    assert torch.equal(again.weights.classifier.low_classifier.weight, state[CLASSIFIER])


@pytest.mark.parametrize("fault", ["altered", "absent", "offline", "altered in the cache"])
def test_a_download_that_fails_says_what_to_put_where(
    fault: str, publisher: Publisher, settings: TeacherConfig
) -> None:
    file_name = publisher.publish({CLASSIFIER: torch.zeros(1)}, SMALLEST)
    served = publisher.served / file_name
    if fault == "altered":
        served.write_bytes(served.read_bytes()[:-1])
    elif fault == "absent":
        served.unlink()
    elif fault == "offline":
        publisher.stop()
    else:
        publisher.cache.mkdir(parents=True)
        torch.save({CLASSIFIER: torch.ones(1)}, publisher.cache / file_name)
    with pytest.raises(ValueError, match="torchvision's LRASPP_") as refused:
        build_teacher(settings, VOC)
    place = publisher.cache / file_name
    assert str(refused.value).startswith(f"{place}: expected torchvision's LRASPP_")
    assert f"/{file_name} in its place" in str(refused.value)
    assert place.exists() == (fault == "altered in the cache")
    assert not list(publisher.cache.glob("*.partial"))
    reason: BaseException | None = refused.value
    while reason := reason.__context__:
        assert not isinstance(reason, HTTPError) or reason.fp.closed


def test_classes_in_another_order_are_refused_before_any_download(
    settings: TeacherConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.teacher.fetch", lambda weights: pytest.fail("fetched"))
    permuted = [*VOC[:8], VOC[9], VOC[8], *VOC[10:]]
    with pytest.raises(ValueError, match=r"8: expected cat, found chair, 9: .*\(2 in all\)"):
        build_teacher(settings, permuted)
    with pytest.raises(ValueError, match="knows 21 classes, the dataset has 3"):
        build_teacher(settings, "abc")
    other = settings.model_copy(update={"architecture": "deeplabv3_resnet18"})
    with pytest.raises(TeacherError, match="torchvision has none of deeplabv3_resnet18"):
        build_teacher(other, VOC)


def body() -> torch.nn.Module:
    """A ResNet18 without its classifier."""
    network = resnet18(weights=None)
    del network.fc
    return network


@pytest.mark.parametrize("kind", ["torchvision.pth", "timm.safetensors"])
def test_a_backbone_comes_from_a_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if path.suffix == ".pth":
        donor = resnet18(weights=None)
        torch.save({"state_dict": {f"module.{k}": x for k, x in donor.state_dict().items()}}, path)
    else:
        donor = timm.create_model("resnet18", pretrained=False)
        save_file(donor.state_dict(), path)
    backbone = body()
    load_backbone(backbone, "resnet18", str(path))
    assert all(torch.equal(x, donor.state_dict()[k]) for k, x in backbone.state_dict().items())


def test_a_backbone_of_timm_comes_from_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    donor, backbone = timm.create_model("resnet18", pretrained=False), body()
    with pytest.raises(ValueError, match=r"backbone timm/resnet18.a1_in1k: .*model\.safetensors"):
        load_backbone(backbone, "resnet18", "timm/resnet18.a1_in1k")
    folder = tmp_path / "models--timm--resnet18.a1_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(donor.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    load_backbone(backbone, "resnet18", "timm/resnet18.a1_in1k")
    assert all(torch.equal(x, donor.state_dict()[k]) for k, x in backbone.state_dict().items())


def test_a_pretrained_backbone_is_torchvisions_by_name(
    publisher: Publisher, tiny_params: Params
) -> None:
    """Its residual blocks stay as they are, and the rest of the network is drawn from the seed."""
    name = "deeplabv3_mobilenet_v3_large"
    donor = get_model("mobilenet_v3_large", weights=None).state_dict()
    publisher.publish(donor, "mobilenet_v3_large")
    settings = tiny_params.teacher.model_copy(update={"architecture": name})
    change = {"backbone": "imagenet"}
    one, other = (
        build_teacher(settings.model_copy(update=change), "abcde").weights.state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(x, other[key]) for key, x in one.items())
    backbone = {key: x for key, x in one.items() if key.startswith("backbone.")}
    assert len(backbone) > 200
    for key, x in backbone.items():
        assert torch.equal(x, donor[key.replace("backbone.", "features.")])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("imagenot", "expected none, imagenet, IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, a file"),
        ("absent/resnet50.pth", "no such file"),
    ],
)
def test_an_unknown_backbone_is_refused(weights: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        load_backbone(body(), "resnet50", weights)


def test_a_backbone_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth is no resnet18:\n  missing bn1\.bias"):
        load_backbone(body(), "resnet18", str(tmp_path / "other.pth"))
