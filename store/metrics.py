"""The confusion matrix and its figures, shared by audit and evaluation."""

import numpy as np

from store.schema import VOID


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, void: int = VOID
) -> np.ndarray:
    """Count pixels by label and prediction; matrices of parts add up to the matrix of the whole.

    Args:
        labels: Integers 0..K-1 or `void`, any shape.
        predictions: Integers 0..K-1, same shape.
        num_classes: K.
        void: The label of pixels that do not count.

    Returns:
        int64 [K,K], rows = label, columns = prediction.

    Raises:
        ValueError: Shapes differ, or a value is no class.
    """
    if labels.shape != predictions.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} differ")
    valid = labels != void
    rows, columns = labels[valid].astype(np.int64), predictions[valid].astype(np.int64)
    for values, what in ((rows, "label"), (columns, "prediction")):
        if len(values) and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"{what} {values.min()}..{values.max()} outside 0..{num_classes - 1}")
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Return intersection over union, float64 [K]: IoU_k = M_kk / (sum_j M_kj + sum_j M_jk - M_kk).

    A class that occurs neither in labels nor in predictions has none: nan.
    """
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    return _shares(np.diag(matrix), union)


def mean_iou(matrix: np.ndarray) -> float:
    """Return the mean IoU over the classes that occur in labels or predictions (nan if none does).

    A class that is predicted where it never is counts as 0; one that is absent from both is left
    out.
    """
    return mean_of_known(iou_per_class(matrix))


def frequency_weighted_iou(matrix: np.ndarray) -> float:
    """Return the mean IoU weighted by the share of each class in the labels (nan without any)."""
    frequency = matrix.sum(axis=1)
    if not frequency.any():
        return float("nan")
    return float((frequency * np.nan_to_num(iou_per_class(matrix))).sum() / frequency.sum())


def dice_per_class(matrix: np.ndarray) -> np.ndarray:
    """Return Dice (F1), float64 [K]: 2 M_kk / (sum_j M_kj + sum_j M_jk); nan where absent."""
    return _shares(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def accuracy_per_class(matrix: np.ndarray) -> np.ndarray:
    """Return the recall of each class, float64 [K]: M_kk / sum_j M_kj; nan where never labelled."""
    return _shares(np.diag(matrix), matrix.sum(axis=1))


def mean_accuracy(matrix: np.ndarray) -> float:
    """Return the mean recall over the classes that are labelled (nan if none is)."""
    return mean_of_known(accuracy_per_class(matrix))


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Return the share of valid pixels that are predicted right (nan if there are none)."""
    total = int(matrix.sum())
    return float(np.diag(matrix).sum() / total) if total else float("nan")


def list_confused(matrix: np.ndarray) -> list[tuple[int, int]]:
    """List classes that are taken for others one for one, as where ids are permuted.

    Class i is taken for j where i's pixels are predicted as j more than as any other class, and no
    class has more pixels predicted as j. A class that a teacher merely misses fails the second.

    Returns:
        Pairs (i, j), i != j.
    """
    predicted, labelled = matrix.argmax(axis=1), matrix.argmax(axis=0)
    return [
        (i, int(j))
        for i, j in enumerate(predicted)
        if j != i and labelled[j] == i and matrix[i, j] > 0
    ]


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return shares


def mean_of_known(values: np.ndarray) -> float:
    """Return the mean of the values that exist (nan where none does)."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def json_number(value: float) -> float | None:
    """Return a figure for JSON, which has no nan: None if it does not exist."""
    return None if np.isnan(value) else float(value)
