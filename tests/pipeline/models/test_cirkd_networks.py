"""The public repository's networks: its names, its forward pass, its two generations.

tests/fixtures/cirkd_keys.tsv.xz has name and shape of every tensor of its checkpoints, 19 classes.
"""

import lzma
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config.params import Params, TeacherConfig
from pipeline.datasets.index import Index
from pipeline.extraction.job import plan_store
from pipeline.models.cirkd_networks import ABSENT_IDS
from pipeline.models.network import Network, build_network, predict
from pipeline.models.teacher import TeacherError, build_teacher, load_teacher, save_teacher

KEYS = Path(__file__).parents[2] / "fixtures/cirkd_keys.tsv.xz"
CHECKPOINTS = {
    # name: architecture, width of the features, parameters at 19 classes in the paper (millions)
    "deeplabv3_resnet101_v1": ("cirkd_deeplabv3_resnet101", 256, "61.1"),
    "deeplabv3_resnet101_v2": ("cirkd_deeplabv3_resnet101", 512, None),
    "deeplabv3_resnet18_v1": ("cirkd_deeplabv3_resnet18", 128, "13.6"),
    "deeplabv3_resnet18_v2": ("cirkd_deeplabv3_resnet18", 512, None),
    "deeplab_mobile_mobilenetv2": ("cirkd_deeplabv3_mobilenet_v2", 128, "3.2"),
    "psp_resnet18": ("cirkd_pspnet_resnet18", 128, "12.9"),
    "psp_mobile_mobilenetv2": ("cirkd_pspnet_mobilenet_v2", 128, None),
}


def shapes(name: str, num_classes: int = 19) -> dict[str, tuple[int, ...]]:
    """Shapes by name of a checkpoint; the rows of 19 classes are those of other numbers, too."""
    rows = (line.split("\t") for line in lzma.decompress(KEYS.read_bytes()).decode().splitlines())
    parsed = {key: tuple(map(int, filter(None, s.split("x")))) for n, key, s in rows if n == name}
    return {key: (num_classes, *s[1:]) if s[:1] == (19,) else s for key, s in parsed.items()}


def draw_weights(name: str, num_classes: int = 19) -> dict[str, Tensor]:
    """Random weights in a checkpoint's layout, of which activations neither vanish nor explode."""
    state = {}
    for key, shape in shapes(name, num_classes).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
            state[key] = 0.5 + torch.rand(shape)
        elif len(shape) == 4:
            state[key] = torch.randn(shape) / (shape[1] * shape[2] * shape[3]) ** 0.5
        else:
            state[key] = torch.randn(shape) / 10
    return state


def fit(name: str, state: dict[str, Tensor], num_classes: int = 19) -> Network:
    network = build_network(CHECKPOINTS[name][0], num_classes)
    network.load_state_dict(network.fit_to(state), assign=True)
    return network.eval()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_names_and_shapes_are_those_of_the_checkpoints(name: str) -> None:
    architecture, width, millions = CHECKPOINTS[name]
    expected = shapes(name)
    with torch.device("meta"):
        network = build_network(architecture, 19)
        network.fit_to({key: torch.empty(shape) for key, shape in expected.items()})
    assert {key: tuple(x.shape) for key, x in network.state_dict().items()} == expected
    assert network.feature_channels == width
    if millions is not None:
        assert f"{sum(x.numel() for x in network.parameters()) / 1e6:.1f}" == millions


class Reference:
    """The forward pass as the facts of the repository tell it, straight from the tensors."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state
        self.seen: dict[str, Tensor] = {}

    def convolve(self, x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        padding = dilation * (weight.shape[-1] // 2)
        groups = x.shape[1] // weight.shape[1]
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{part}"].view(-1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def layer(self, x: Tensor, name: str, first: int = 0, dilation: int = 1) -> Tensor:
        """Convolution, norm and ReLU of a Sequential."""
        x = self.convolve(x, f"{name}.{first}", dilation=dilation)
        return self.norm(x, f"{name}.{first + 1}").relu()

    def basic(self, x: Tensor, name: str, stride: int, dilations: tuple[int, int]) -> Tensor:
        y = self.norm(self.convolve(x, f"{name}.conv1", stride, dilations[0]), f"{name}.bn1").relu()
        y = self.norm(self.convolve(y, f"{name}.conv2", 1, dilations[1]), f"{name}.bn2")
        return (y + self.shortcut(x, name, stride)).relu()

    def bottleneck(self, x: Tensor, name: str, stride: int, dilation: int) -> Tensor:
        y = self.norm(self.convolve(x, f"{name}.conv1"), f"{name}.bn1").relu()
        y = self.norm(self.convolve(y, f"{name}.conv2", stride, dilation), f"{name}.bn2").relu()
        y = self.norm(self.convolve(y, f"{name}.conv3"), f"{name}.bn3")
        return (y + self.shortcut(x, name, stride)).relu()

    def shortcut(self, x: Tensor, name: str, stride: int) -> Tensor:
        if f"{name}.downsample.0.weight" not in self.state:
            return x
        x = self.convolve(x, f"{name}.downsample.0", stride)
        return self.norm(x, f"{name}.downsample.1")

    def resnet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for number, stride in ((1, 2), (2, 1), (3, 1)):
            x = self.convolve(x, f"pretrained.conv{number}", stride)
            x = self.norm(x, f"pretrained.bn{number}").relu()
        x = functional.max_pool2d(x, 3, 2, 1)
        stages = []
        if "pretrained.layer1.0.conv3.weight" in self.state:
            lengths = (3, 4, 23, 3)
            dilations = ([1] * 3, [1] * 4, [1] + [2] * 22, [2, 4, 4])
        else:
            lengths = (2, 2, 2, 2)
            dilations = ([(1, 1)] * 2, [(1, 1)] * 2, [(1, 2), (2, 2)], [(2, 4), (4, 4)])
        block = self.bottleneck if lengths[2] == 23 else self.basic
        for number, stride in ((1, 1), (2, 2), (3, 1), (4, 1)):
            for place in range(lengths[number - 1]):
                name = f"pretrained.layer{number}.{place}"
                x = block(x, name, 1 if place else stride, dilations[number - 1][place])
                self.seen[name] = x
            stages.append(x)
        return stages[2], stages[3]

    def mobilenet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        name = "pretrained.net.features"
        x = self.norm(self.convolve(x, f"{name}.0.0", 2), f"{name}.0.1").clamp(0, 6)
        for place in range(1, 18):
            stride = 2 if place in (2, 4) else 1
            dilation = 1 if place < 8 else 2 if place < 15 else 4
            block, y, first = f"{name}.{place}.conv", x, 0
            if place > 1:
                y = self.norm(self.convolve(y, f"{block}.0"), f"{block}.1").clamp(0, 6)
                first = 3
            y = self.convolve(y, f"{block}.{first}", stride, dilation)
            y = self.norm(y, f"{block}.{first + 1}").clamp(0, 6)
            y = self.norm(self.convolve(y, f"{block}.{first + 3}"), f"{block}.{first + 4}")
            x = x + y if place in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16) else y
            self.seen[f"{name}.{place}"] = x
        return x, x

    def aspp(self, x: Tensor) -> Tensor:
        branches = [self.layer(x, "head.aspp.b0")]
        for number, rate in ((1, 12), (2, 24), (3, 36)):
            branches.append(self.layer(x, f"head.aspp.b{number}.block", dilation=rate))
        mean = self.layer(x.mean(dim=(2, 3), keepdim=True), "head.aspp.b4.gap", first=1)
        branches.append(mean.expand(-1, -1, *x.shape[2:]))
        self.seen["head.aspp"] = self.layer(torch.cat(branches, dim=1), "head.aspp.project")
        return self.seen["head.aspp"]

    def pyramid(self, x: Tensor) -> Tensor:
        levels = [x]
        for number, bins in ((1, 1), (2, 2), (3, 3), (4, 6)):
            level = self.layer(functional.adaptive_avg_pool2d(x, bins), f"head.psp.conv{number}")
            levels.append(functional.interpolate(level, x.shape[2:], None, "bilinear", True))
        self.seen["head.psp"] = torch.cat(levels, dim=1)
        return self.seen["head.psp"]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        is_resnet = "pretrained.conv1.weight" in self.state
        third, fourth = self.resnet(x) if is_resnet else self.mobilenet(x)
        is_psp = "head.classifier.weight" in self.state
        features = self.layer(self.pyramid(fourth) if is_psp else self.aspp(fourth), "head.block")
        logits = self.convolve(features, "head.classifier" if is_psp else "head.block.4")
        if not is_resnet:
            return logits, features, None
        auxiliary = self.layer(third, "auxlayer.block")
        return logits, features, self.convolve(auxiliary, "auxlayer.block.4")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_layer_is_that_of_an_independent_construction(name: str) -> None:
    drawn = draw_weights(name).items()
    state = {key: x.double() if x.is_floating_point() else x for key, x in drawn}
    network, reference = fit(name, state).double(), Reference(state)
    seen: dict[str, Tensor] = {}
    # So wide that the rate of 36 reaches other cells.
    image = torch.randn(1, 3, 16, 304, dtype=torch.float64)
    with torch.no_grad():
        expected = reference.forward(image)
        for key in reference.seen:
            network.get_submodule(key).register_forward_hook(
                lambda module, inputs, output, key=key: seen.update({key: output})
            )
        found = network(image)
    for key, layer in reference.seen.items():
        torch.testing.assert_close(seen[key], layer, rtol=1e-9, atol=1e-9, msg=key)
        assert layer.std() > 1e-3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert found.logits.shape == (1, 19, 2, 38)
    assert found.features.shape == (1, network.feature_channels, 2, 38)


def test_images_and_logits_are_treated_as_in_the_repository() -> None:
    network = build_network("cirkd_pspnet_mobilenet_v2", 5)
    image = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    red, green, blue = image[0].float()
    expected = torch.stack([blue - 104.00698793, green - 116.66876762, red - 122.67891434])
    torch.testing.assert_close(network.normalise(image)[0], expected, rtol=0, atol=1e-4)
    network = network.eval()
    with torch.no_grad():
        logits = functional.interpolate(
            network(expected[None]).logits, (32, 48), mode="bilinear", align_corners=True
        )
    assert torch.equal(predict(network, image, "float32"), logits.argmax(1).byte())
    corners = network.upsample(torch.tensor([[[[0.0, 1.0]]]]), (1, 5))
    torch.testing.assert_close(corners.flatten(), torch.tensor([0, 0.25, 0.5, 0.75, 1]))


def checkpoint_settings(params: Params, path: Path, architecture: str) -> TeacherConfig:
    change = {"source": "checkpoint", "checkpoint": str(path), "architecture": architecture}
    return params.teacher.model_copy(update=change)


@pytest.mark.parametrize("name", ["deeplabv3_resnet18_v1", "deeplabv3_resnet18_v2"])
def test_each_generation_is_known_by_its_file_and_comes_back(
    name: str, tiny_params: Params, tiny_index: Index, tmp_path: Path
) -> None:
    architecture, width, _ = CHECKPOINTS[name]
    state = draw_weights(name, tiny_index.num_classes)
    torch.save(state, tmp_path / "kd_best_model.pth")
    settings = checkpoint_settings(tiny_params, tmp_path / "kd_best_model.pth", architecture)
    teacher = build_teacher(settings, tiny_index.class_names).eval()
    sha256 = save_teacher(teacher, tmp_path / "teacher.pt")
    loaded = load_teacher(tmp_path / "teacher.pt", tiny_index.num_classes, architecture, sha256)
    spec = plan_store(tiny_index, tiny_params.store, loaded, sha256, torch.device("cpu"))
    assert spec.feature_channels == teacher.feature_channels == width
    preprocessing = spec.identity["teacher"]["preprocessing"]
    assert preprocessing.items() >= {"bgr": True, "align_corners": True, "stride": 8}.items()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert all(map(torch.equal, loaded(image), teacher(image)))
    assert all(torch.equal(x, state[key]) for key, x in loaded.state_dict().items())


def test_rows_of_ids_that_no_label_has_are_cut() -> None:
    name = "psp_resnet18"
    state = draw_weights(name, 182)
    with torch.no_grad():
        whole, cut = fit(name, state, 182), fit(name, state, 171)
        image = torch.randn(1, 3, 32, 32)
        used = [k for k in range(182) if k not in ABSENT_IDS]
        assert len(used) == 171
        torch.testing.assert_close(cut(image).logits, whole(image).logits[:, used])
        torch.testing.assert_close(cut(image).auxiliary, whole(image).auxiliary[:, used])
    assert len(state["head.classifier.weight"]) == 182


def test_a_file_of_other_classes_says_so(tiny_params: Params, tmp_path: Path) -> None:
    name = "psp_mobile_mobilenetv2"
    torch.save(draw_weights(name), tmp_path / "citys.pth")
    settings = checkpoint_settings(tiny_params, tmp_path / "citys.pth", CHECKPOINTS[name][0])
    with pytest.raises(TeacherError, match=r"citys\.pth is no .* for 5 classes \(it has 19\)"):
        build_teacher(settings, "abcde")


@pytest.mark.parametrize("name", ["psp_resnet18", "psp_mobile_mobilenetv2"])
def test_a_backbone_of_the_repository_comes_from_a_file(name: str, tmp_path: Path) -> None:
    """As they are published: without a prefix, with a classifier, before norms counted batches."""
    state = {
        key.removeprefix("pretrained.").removeprefix("net."): x
        for key, x in draw_weights(name).items()
        if key.startswith("pretrained.") and not key.endswith("num_batches_tracked")
    }
    resnet = "resnet" in name
    # Of images: MobileNetV2's has a convolution of its own before the last layer.
    ends = ["fc.weight"] if resnet else ["features.18.0.weight", "classifier.1.weight"]
    torch.save({**state, **dict.fromkeys(ends, torch.zeros(8, 5))}, tmp_path / "imagenet.pth")
    network = build_network(CHECKPOINTS[name][0], 5, str(tmp_path / "imagenet.pth"))
    own = network.pretrained.state_dict()
    own = {key.removeprefix("net."): x for key, x in own.items()}
    assert all(torch.equal(own[key], x) for key, x in state.items())
    with pytest.raises(ValueError, match="imagenet: no such file"):
        build_network(CHECKPOINTS[name][0], 5, "imagenet")
