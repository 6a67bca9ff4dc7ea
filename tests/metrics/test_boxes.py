import numpy as np
import pytest

from xpath.metrics.boxes import box_cost, fill_boxes, instance_boxes


def l_and_square():
    """An L of 96 pixels in a box of 14 x 14, and a square of 36 far away."""
    mask = np.zeros((60, 80), bool)
    mask[2:16, 3:7] = True
    mask[12:16, 7:17] = True
    mask[40:46, 70:76] = True
    return mask


def test_boxes_by_hand():
    mask = l_and_square()

    assert instance_boxes(mask).tolist() == [[3, 2, 17, 16], [70, 40, 76, 46]]


def test_cost_by_hand():
    """Truth 96 + 36 pixels; instance boxes 196 + 36, union box 73 x 44; two clicks a box."""
    cost = box_cost(l_and_square())

    assert cost[:4] == (1, 2, 2, 4)
    assert cost.instance_dice == pytest.approx(2 * 132 / (132 + 232))
    assert cost.union_dice == pytest.approx(2 * 132 / (132 + 73 * 44))


def test_boxes_that_overlap_are_filled_once():
    filled = fill_boxes(np.array([[0, 0, 3, 2], [2, 1, 5, 4]]), (6, 7))

    assert filled.sum() == 6 + 9 - 1


def test_specks_beside_objects_get_no_box_but_specks_alone_do():
    mask = l_and_square()
    mask[55, 2] = True
    specks = np.zeros((60, 80), bool)
    specks[5, 5] = specks[50, 70] = True

    assert box_cost(mask).instance_boxes == 2
    assert box_cost(specks)[:4] == (1, 2, 2, 4)


def test_nothing_costs_nothing():
    assert box_cost(np.zeros((5, 6), bool)) == (0, 0, 0, 0, 1.0, 1.0)
