"""Region centers and pixel draws: each class from its own pixels, nothing from void."""

import pytest
import torch

from pipeline.ops.embedding import embed
from pipeline.ops.regions import draw_pixels, region_centers
from pipeline.runtime.rng import torch_generator

VOID = 255


def scene(images: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = embed(torch.randn(images, 6, 5, 7, generator=generator))
    labels = torch.randint(0, 5, (images, 5, 7), generator=generator).to(torch.uint8)
    labels[labels == 4] = VOID
    return embeddings, labels


def keys(images: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(images, 35, generator=torch_generator(seed, "test"))


def test_centers_equal_a_loop() -> None:
    embeddings, labels = scene()
    centers, pixels = region_centers(embeddings, labels, num_classes=6)
    for image in range(3):
        for number in range(6):
            member = labels[image] == number
            assert pixels[image, number] == member.sum()
            if member.any():
                mean = embeddings[image][:, member].mean(dim=1)
                torch.testing.assert_close(centers[image, number], mean / mean.norm())
            else:
                assert (centers[image, number] == 0).all()


def test_a_hand_worked_center() -> None:
    embeddings = torch.tensor([[[[1.0, 0.0, 0.6]], [[0.0, 1.0, 0.8]]]])
    labels = torch.tensor([[[0, 0, VOID]]], dtype=torch.uint8)
    centers, pixels = region_centers(embeddings, labels, num_classes=2)
    assert centers[0, 0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert pixels.tolist() == [[2, 0]]


def test_draws_come_from_the_classes_own_pixels_without_repetition() -> None:
    embeddings, labels = scene()
    draw = draw_pixels(embeddings, labels, 6, 4, keys())
    assert draw.classes.shape == (3, 24)
    for image in range(3):
        for number in range(6):
            own = {tuple(e.tolist()) for e in embeddings[image][:, labels[image] == number].T}
            drawn = draw.embeddings[image][draw.classes[image] == number]
            assert len(drawn) == min(4, len(own))
            assert {tuple(e.tolist()) for e in drawn} <= own
            assert len({tuple(e.tolist()) for e in drawn}) == len(drawn)
        assert (draw.embeddings[image][draw.classes[image] == VOID] == 0).all()


def test_chance_is_the_keys_alone() -> None:
    embeddings, labels = scene()
    one, again, other = (
        draw_pixels(embeddings, labels, 6, 2, keys(seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one.embeddings, again.embeddings)
    assert not torch.equal(one.embeddings, other.embeddings)


def test_more_places_than_pixels() -> None:
    embeddings, labels = scene(images=1)
    draw = draw_pixels(embeddings, labels, 6, 1000, keys(images=1))
    assert (draw.classes != VOID).sum() == (labels != VOID).sum()
