"""Inference: windows, scales and mirror images leave what they must not change."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.inference import Inference, predict_classes
from pipeline.models.network import Network, Output, predict


class Pixelwise(Network):
    """Says of each pixel what that pixel alone decides, so that windows cannot matter."""

    stride = 1
    feature_channels = 3

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.calls: list[tuple[int, ...]] = []
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(num_classes, 3, 1, 1, generator=generator)

    def forward(self, image: torch.Tensor) -> Output:
        self.calls.append(tuple(image.shape))
        logits = torch.nn.functional.conv2d(image, self.weight)
        return Output(logits, image, None)


class Leftmost(Pixelwise):
    """Says class 1 in the left half of what it sees, else 0."""

    def forward(self, image: torch.Tensor) -> Output:
        logits = torch.zeros(len(image), 2, *image.shape[-2:])
        half = image.shape[-1] // 2
        logits[:, 1, :, :half], logits[:, 0, :, half:] = 2, 1
        return Output(logits, image, None)


def random_image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    shape = (batch, 3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    window=st.integers(1, 48),
    overlap=st.sampled_from([0.0, 0.25, 1 / 3, 0.9]),
)
def test_windows_cover_every_pixel(height: int, width: int, window: int, overlap: float) -> None:
    network, image = Pixelwise(), random_image(height, width, 2)
    slid = predict_classes(network, image, Inference(window=window, overlap=overlap))
    assert torch.equal(slid, predict(network, image, "float32"))


def test_no_pass_is_larger_than_the_window() -> None:
    network = Pixelwise()
    predict_classes(network, random_image(100, 170), Inference(window=32))
    assert {shape[-2:] for shape in network.calls} == {(32, 32)}


def test_the_default_is_one_pass_over_the_whole_image() -> None:
    network, image = Pixelwise(), random_image(17, 23)
    assert torch.equal(
        predict_classes(network, image, Inference()), predict(network, image, "float32")
    )
    assert [shape[-2:] for shape in network.calls] == [(17, 23)] * 2


def test_a_mirror_image_is_mirrored_back() -> None:
    image = random_image(4, 8)
    network = Leftmost()
    assert predict_classes(network, image, Inference())[0, 0].tolist() == [1] * 4 + [0] * 4
    # Class 1 wins where it is said with 2 against 1: mirrored back, both halves are it.
    assert predict_classes(network, image, Inference(flip=True)).unique().tolist() == [1]


def test_scales_are_passes_of_their_size() -> None:
    network = Pixelwise()
    classes = predict_classes(network, random_image(20, 30), Inference(scales=(0.5, 1.0, 1.5)))
    assert classes.shape == (1, 20, 30)
    assert [shape[-2:] for shape in network.calls] == [(10, 15), (20, 30), (30, 45)]


def test_one_scale_twice_changes_nothing() -> None:
    network, image = Pixelwise(), random_image(20, 30)
    twice = predict_classes(network, image, Inference(scales=(1.0, 1.0)))
    assert torch.equal(twice, predict(network, image, "float32"))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (0.5, 0.0)}, "scales"),
        ({"window": 0}, "window"),
        ({"overlap": 1.0}, "overlap"),
    ],
)
def test_what_no_image_can_be_predicted_with_is_refused(wrong: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Inference(**wrong)
