"""The confusion matrix as a figure: shares of rows, named, blank where nothing is labelled."""

import numpy as np
from matplotlib.figure import Figure

from pipeline.report.confusion_figure import NUMBERS_UP_TO, draw_confusion

MATRIX = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])


def texts(figure: Figure) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts}


def test_cells_are_shares_of_their_row() -> None:
    figure = draw_confusion(MATRIX, ("road", "$car$", "sky"))
    axes = figure.axes[0]
    shares = axes.images[0].get_array()
    assert shares is not None
    assert np.allclose(shares[0], [0.75, 0.25, 0])
    assert np.ma.getmaskarray(np.ma.masked_invalid(shares))[1].all()
    # Of a cell (column, row).
    assert texts(figure) == {(0, 0): "75", (1, 0): "25", (0, 2): "25", (2, 2): "75"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["road", "$car$", "sky"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "label")


def test_many_classes_have_no_numbers() -> None:
    num_classes = NUMBERS_UP_TO + 1
    names = [str(k) for k in range(num_classes)]
    assert texts(draw_confusion(np.eye(num_classes, dtype=np.int64), names)) == {}
