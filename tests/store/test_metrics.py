import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store.metrics import (
    accuracy_per_class,
    confusion_matrix,
    dice_per_class,
    frequency_weighted_iou,
    iou_per_class,
    list_confused,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)

K = 4
LABELS = arrays(np.uint8, 12, elements=st.sampled_from([0, 1, 2, 3, 255]))
PREDICTIONS = arrays(np.int64, 12, elements=st.integers(0, K - 1))


@given(LABELS, PREDICTIONS, LABELS, PREDICTIONS)
def test_merging_is_concatenating_is_brute_force(
    a: np.ndarray, p: np.ndarray, b: np.ndarray, q: np.ndarray
) -> None:
    merged = confusion_matrix(a, p, K) + confusion_matrix(b, q, K)
    labels, predictions = np.concatenate([a, b]), np.concatenate([p, q])
    brute = np.zeros((K, K), np.int64)
    for label, prediction in zip(labels.tolist(), predictions.tolist(), strict=True):
        if label != 255:
            brute[label, prediction] += 1
    np.testing.assert_array_equal(merged, brute)
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, K), brute)


def test_iou_accuracy_and_mean_by_hand() -> None:
    matrix = confusion_matrix(np.array([[0, 0, 1, 255]]), np.array([[0, 2, 1, 3]]), K)
    # Class 2 is predicted but never there: 0. Class 3 is in neither (its pixel is void): left out.
    np.testing.assert_array_equal(iou_per_class(matrix), [0.5, 1.0, 0.0, np.nan])
    assert mean_iou(matrix) == 0.5
    assert pixel_accuracy(matrix) == 2 / 3


def test_dice_recall_and_weighted_iou_by_hand() -> None:
    matrix = np.array([[3, 1, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(iou_per_class(matrix), [3 / 4, 2 / 5, 0, np.nan])
    np.testing.assert_allclose(dice_per_class(matrix), [6 / 7, 4 / 7, 0, np.nan])
    np.testing.assert_allclose(accuracy_per_class(matrix), [3 / 4, 1, 0, np.nan])
    assert mean_accuracy(matrix) == pytest.approx((3 / 4 + 1) / 3)
    weighted = (4 * 3 / 4 + 2 * 2 / 5) / 8
    assert frequency_weighted_iou(matrix) == pytest.approx(weighted)


def test_a_perfect_prediction_is_one_in_every_figure() -> None:
    matrix = np.diag([5, 0, 2])
    figures = (mean_iou, mean_accuracy, frequency_weighted_iou, pixel_accuracy)
    assert [figure(matrix) for figure in figures] == [1.0] * 4


def test_nothing_counted_is_no_number_and_no_warning() -> None:
    matrix = confusion_matrix(np.full(3, 255, np.uint8), np.zeros(3, np.uint8), K)
    for figure in (mean_iou, mean_accuracy, frequency_weighted_iou, pixel_accuracy):
        assert np.isnan(figure(matrix))


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label 1\.\.7"):
        confusion_matrix(np.array([1, 7]), np.array([0, 0]), K)
    with pytest.raises(ValueError, match=r"prediction -1\.\.0"):
        confusion_matrix(np.array([1, 1]), np.array([0, -1]), K)
    with pytest.raises(ValueError, match="differ"):
        confusion_matrix(np.zeros((1, 2)), np.zeros((2, 1)), K)


def test_permuted_classes_are_told_from_missed_ones() -> None:
    learned = np.array([[90, 5, 5, 0], [4, 6, 0, 0], [3, 0, 2, 0], [7, 0, 0, 0]])
    assert learned.argmax(axis=1).tolist() == [0, 1, 0, 0]  # two are mostly missed
    assert list_confused(learned) == []
    assert list_confused(learned[:, [1, 0, 2, 3]]) == [(0, 1), (1, 0)]
    assert list_confused(np.zeros((3, 3), int)) == []


@given(st.permutations(range(5)))
def test_every_permutation_of_a_good_teacher_is_found(order: list[int]) -> None:
    permuted = (np.full((5, 5), 1) + 20 * np.eye(5, dtype=int))[:, order]
    found = dict(list_confused(permuted))
    assert found == {i: order.index(i) for i in range(5) if order[i] != i}
