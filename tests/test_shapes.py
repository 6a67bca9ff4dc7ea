"""The one shape check."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.shapes import check_shape


def test_letters_are_bound_in_order():
    assert check_shape("bag", np.zeros((2, 5, 7)), "B N D") == {"B": 2, "N": 5, "D": 7}


def test_a_letter_seen_twice_must_agree():
    assert check_shape("square", np.zeros((4, 4)), "N N") == {"N": 4}
    with pytest.raises(ShapeError, match=r"square must be \(N, N\), got \(4, 5\)"):
        check_shape("square", np.zeros((4, 5)), "N N")


def test_numbers_must_match():
    assert check_shape("image", np.zeros((2, 3, 8, 9)), "B 3 H W") == {"B": 2, "H": 8, "W": 9}
    with pytest.raises(ShapeError, match=r"image must be \(B, 3, H, W\), got \(2, 4, 8, 9\)"):
        check_shape("image", np.zeros((2, 4, 8, 9)), "B 3 H W")


def test_known_sizes_bind_and_come_back():
    assert check_shape("mask", np.zeros((2, 5)), "B N", B=2, L=9) == {"B": 2, "N": 5, "L": 9}
    with pytest.raises(ShapeError, match=r"mask must be \(B, N\) with \{'B': 3\}, got \(2, 5\)"):
        check_shape("mask", np.zeros((2, 5)), "B N", B=3)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3, 4)])
def test_the_number_of_axes_must_match(shape):
    with pytest.raises(ShapeError, match="must be"):
        check_shape("bag", np.zeros(shape), "N D")


def test_axes_may_be_empty_and_scalars_have_none():
    assert check_shape("bag", np.zeros((0, 4)), "N D") == {"N": 0, "D": 4}
    assert check_shape("loss", np.zeros(()), "") == {}


def test_what_is_known_is_not_changed():
    known = {"B": 2}

    check_shape("bag", np.zeros((2, 5)), "B N", **known)

    assert known == {"B": 2}


def test_a_wrong_shape_is_a_data_error():
    with pytest.raises(DataError):
        check_shape("bag", np.zeros(3), "N D")
