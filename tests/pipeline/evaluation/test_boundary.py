"""The boundary F-score: by hand, and what it must not see."""

import numpy as np
import pytest
import torch

from pipeline.evaluation.boundary import boundary_counts, boundary_f_score, summarise_boundaries


def square(top: int, left: int, size: int = 8, side: int = 40) -> torch.Tensor:
    labels = torch.zeros(side, side, dtype=torch.uint8)
    labels[top : top + size, left : left + size] = 1
    return labels


def scores(labels: torch.Tensor, classes: torch.Tensor) -> list[float]:
    return boundary_f_score(boundary_counts(labels, classes, 3).numpy()).tolist()


def test_a_square_has_its_outline() -> None:
    counts = boundary_counts(square(10, 10), square(10, 10), 3)
    inner, outer = 4 * 7, 4 * 8
    assert counts.tolist() == [[outer] * 4, [inner] * 4, [0] * 4]
    assert scores(square(10, 10), square(10, 10))[:2] == [1, 1]
    assert np.isnan(scores(square(10, 10), square(10, 10))[2])


def test_a_pixel_off_is_met_and_far_off_is_not() -> None:
    # The diagonal of 40x40 is 57 pixels: a tolerance of one.
    assert scores(square(10, 10), square(11, 11))[:2] == [1, 1]
    assert scores(square(2, 2), square(28, 28))[:2] == [0, 0]


def test_half_of_the_outline_by_hand() -> None:
    """A prediction of the left half: its own right edge is not there."""
    labels, classes = square(10, 10), square(10, 10)
    classes[:, 14:] = 0
    predicted, met, labelled, labelled_met = boundary_counts(labels, classes, 2)[1].tolist()
    assert (predicted, labelled) == (2 * 8 + 2 * 2, 28)
    # Of its right edge the four in the middle lie more than a pixel from any of the square's.
    assert met == predicted - 4
    # Left column, and above and below a column more than is predicted.
    assert labelled_met == 8 + 2 * 4


def test_void_and_the_edge_of_the_image_are_no_boundary() -> None:
    labels = torch.zeros(30, 30, dtype=torch.uint8)
    labels[:, 15:] = 255
    noise = torch.randint(0, 2, (30, 30), generator=torch.Generator().manual_seed(0))
    classes = torch.where(labels == 255, noise.to(torch.uint8), labels)
    assert boundary_counts(labels, classes, 2).sum() == 0


def test_counts_of_images_add_up() -> None:
    parts = [boundary_counts(square(10, 10), square(10, n), 2).numpy() for n in (10, 13)]
    figures = summarise_boundaries(sum(parts))
    precision = (parts[0][1, 1] + parts[1][1, 1]) / (parts[0][1, 0] + parts[1][1, 0])
    recall = (parts[0][1, 3] + parts[1][1, 3]) / (parts[0][1, 2] + parts[1][1, 2])
    expected = 2 * precision * recall / (precision + recall)
    assert figures["boundary_f"][1] == pytest.approx(expected)
    assert 0 < expected < 1


def test_nothing_is_no_number() -> None:
    empty = torch.zeros(5, 5, dtype=torch.uint8)
    figures = summarise_boundaries(boundary_counts(empty, empty, 2).numpy())
    assert figures == {"boundary_f": [None, None], "mean_boundary_f": None}
