import numpy as np
import pytest

from xpath.errors import DataError
from xpath.grounded.boxes import draw_box, region_box, region_boxes


def test_a_box_is_a_green_line_of_two_pixels_on_a_copy():
    image = np.zeros((30, 40, 3), np.uint8)

    drawn = draw_box(image, (10, 5, 20, 12))

    green = (drawn == (0, 255, 0)).all(axis=2)
    rows, columns = np.nonzero(green)
    assert not image.any()
    assert (rows.min(), rows.max()) == (4, 18)  # the line lies on both sides of 5 and 17
    assert (columns.min(), columns.max()) == (9, 31)
    assert not green[8:15, 13:28].any()
    assert green.sum() == (drawn.any(axis=2)).sum()


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (-1, 0, 5, 5), (35, 0, 6, 5), (0, 28, 5, 3)])
def test_boxes_outside_are_refused(box):
    with pytest.raises(DataError, match="40 x 30"):
        draw_box(np.zeros((30, 40, 3), np.uint8), box)


def test_boxes_of_regions_are_tight():
    mask = np.zeros((60, 60), bool)
    mask[2:5, 10:20] = True
    mask[30:55, 30:50] = True
    mask[35:40, 35:40] = False  # a hole is no region

    assert sorted(region_boxes(mask)) == [(10, 2, 10, 3), (30, 30, 20, 25)]


def test_large_regions_go_first():
    mask = np.zeros((60, 60), bool)
    mask[2:5, 10:20] = True
    rng = np.random.default_rng(0)
    assert region_box(mask, rng) == (10, 2, 10, 3)
    mask[30:55, 30:50] = True
    assert {region_box(mask, rng) for _ in range(20)} == {(30, 30, 20, 25)}
    mask[0:1, 30:31] = True
    mask[30:55, 30:50] = False
    assert {region_box(mask, rng) for _ in range(20)} == {(10, 2, 10, 3), (30, 0, 1, 1)}
    assert region_box(np.zeros((5, 5), bool), rng) is None
