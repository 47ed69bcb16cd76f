"""Any pair of segmentation_models_pytorch: stride, features and sizes asked of the network."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch

from pipeline.config.architectures import SMP_DECODERS, find_architecture
from pipeline.config.params import Params
from pipeline.models.network import build_network, predict
from pipeline.models.teacher import build_teacher, load_teacher, save_teacher

# Name, stride, channels of the features.
PAIRS = [
    ("smp:unet/resnet18", 1, 16),
    ("smp:fpn/resnet18", 4, 128),
    ("smp:segformer/mit_b0", 4, 256),
    ("smp:deeplabv3plus/tu-mobilevitv2_050", 4, 256),
    ("smp:pspnet/mobilenet_v2", 8, 512),
]


@pytest.mark.parametrize(("name", "stride", "channels"), PAIRS)
def test_a_pair_takes_every_multiple_of_its_stride(name: str, stride: int, channels: int) -> None:
    """The encoders themselves want multiples of up to 64."""
    network = build_network(name, 5).train()
    assert (network.stride, network.feature_channels) == (stride, channels)
    output = network(torch.randn(2, 3, 40, 72))
    assert output.logits.shape == (2, 5, 40 // stride, 72 // stride)
    assert output.features.shape == (2, channels, 40 // stride, 72 // stride)
    image = torch.randint(0, 256, (1, 3, 37, 51), dtype=torch.uint8)
    assert predict(network.eval(), image, "float32").shape == (1, 37, 51)


def test_all_decoders_of_the_library_are_known_but_one() -> None:
    assert {*SMP_DECODERS, "dpt"} == set(smp.MODEL_ARCHITECTURES_MAPPING)


def test_features_and_padding_are_the_librarys() -> None:
    network = build_network("segformer_mit_b0", 3).eval()
    image = torch.randn(1, 3, 64, 96)
    whole, cut = network(image), network(image[..., :40, :72])
    features = network.decoder(network.encoder(image))
    assert torch.equal(whole.features, features)
    assert torch.equal(whole.logits, network.classifier(features))
    padded = torch.nn.functional.pad(image[..., :40, :72], (0, 24, 0, 24))
    assert torch.equal(cut.features, network(padded).features[..., :10, :18])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smp:fpn/resnot", r"smp:fpn/resnot: .Wrong encoder name"),
        ("smp:fpn/tu-resnot", r"smp:fpn/tu-resnot: Unknown model"),
        ("smp:deeplabv3/vgg11", "smp:deeplabv3/vgg11: .*dilated"),
        ("smp:deeplabv3/mit_b0", "dilation changes a MiT's attention; take smp:segformer"),
        ("smp:dpt/resnet18", "smp:ARCHITECTURE/ENCODER, where ARCHITECTURE is one of unet"),
        ("deeplabv4", "expected one of deeplabv3_resnet101, .*package.module:factory"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(name, 3)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("upernet_resnet18", "UPerNet-R18"),
        ("smp:fpn/tu-mobilevitv2_050", "FPN, tu-mobilevitv2_050"),
        ("my.networks:make", "my.networks:make"),
    ],
)
def test_every_name_has_a_title(name: str, title: str) -> None:
    assert find_architecture(name).title == title


def test_images_are_made_as_the_published_weights_want_them() -> None:
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    lite, mobilevit = (
        build_network(f"deeplabv3_{encoder}", 2).normalise(white).unique()
        for encoder in ("efficientnet_lite0", "mobilevit")
    )
    assert lite.tolist() == mobilevit.tolist() == [1.0]
    black = torch.zeros_like(white)
    assert build_network("deeplabv3_mobilevit", 2).normalise(black).unique().tolist() == [0.0]
    assert build_network("smp:fpn/tu-tf_efficientnet_lite0", 2).normalise(black).max() == -1


def test_a_pair_is_a_teacher(tiny_params: Params, tmp_path: Path) -> None:
    change = {"architecture": "smp:segformer/mit_b0", "crop": tiny_params.teacher.crop}
    teacher = build_teacher(tiny_params.teacher.model_copy(update=change), "abcde").eval()
    sha256 = save_teacher(teacher, tmp_path / "teacher.pt")
    loaded = load_teacher(tmp_path / "teacher.pt", 5, teacher.architecture, sha256)
    assert (loaded.stride, loaded.feature_channels) == (4, 256)
    image = torch.randn(1, 3, 40, 64)
    assert torch.equal(loaded(image).logits, teacher(image).logits)


@pytest.mark.parametrize("architecture", ["deeplabv3_mobilenet_v2", "pspnet_mobilenet_v2"])
def test_a_teachers_dropout_is_its_decoders(architecture: str, tiny_params: Params) -> None:
    settings = tiny_params.teacher.model_copy(update={"architecture": architecture, "dropout": 0.3})
    assert [layer.p for layer in build_teacher(settings, "abcde").dropouts] == [0.3]
