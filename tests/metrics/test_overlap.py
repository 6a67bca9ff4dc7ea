import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.metrics.overlap import dice, iou


def mask(text):
    return np.array([int(sign) for sign in text], bool).reshape(2, -1)


@pytest.mark.parametrize(
    ("first", "second", "wanted_dice", "wanted_iou"),
    [
        ("110010", "100011", 4 / 6, 2 / 4),
        ("111000", "111000", 1.0, 1.0),
        ("111000", "000111", 0.0, 0.0),
        ("000000", "000001", 0.0, 0.0),
        ("000000", "000000", 1.0, 1.0),
    ],
)
def test_by_hand_and_symmetric(first, second, wanted_dice, wanted_iou):
    first, second = mask(first), mask(second)

    assert dice(first, second) == dice(second, first) == pytest.approx(wanted_dice)
    assert iou(first, second) == iou(second, first) == pytest.approx(wanted_iou)


@pytest.mark.parametrize("measure", [dice, iou])
def test_masks_that_do_not_fit_are_refused(measure):
    with pytest.raises(ShapeError, match="one shape"):
        measure(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(DataError, match="boolean"):
        measure(np.zeros((2, 3), bool), np.full((2, 3), 255, np.uint8))
