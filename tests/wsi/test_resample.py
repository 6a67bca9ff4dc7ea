"""Resampling against sums by hand and against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.geometry import Size
from xpath.wsi.resample import on_white, resample, resize


def grey(*rows):
    """An RGB picture of equal channels."""
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)


def row(values):
    return grey(values)


@pytest.mark.parametrize(
    ("alpha", "wanted"),
    [(255, [10, 20, 30]), (0, [255, 255, 255]), (51, [206, 208, 210])],
)
def test_transparent_pixels_lie_on_white(alpha, wanted):
    """A fifth (51 of 255) of the colour and four fifths of white: 0.2 * 10 + 0.8 * 255 = 206."""
    pixels = np.array([[[10, 20, 30, alpha]]], np.uint8)

    assert on_white(pixels).tolist() == [[wanted]]


def test_opaque_neighbours_of_transparent_pixels_keep_their_colour():
    pixels = np.array([[[1, 2, 3, 255], [9, 9, 9, 0]]], np.uint8)

    assert on_white(pixels).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_shrinking_averages_areas():
    picture = grey([0, 100, 10, 10], [100, 200, 10, 10])

    assert resize(picture, Size(2, 1))[..., 0].tolist() == [[100, 10]]


def test_enlarging_is_smooth_and_keeps_flat_parts_flat():
    picture = grey([0, 0, 100, 100])

    found = resize(picture, Size(8, 3))[..., 0]

    assert found[0].tolist() == [0, 0, 0, 25, 75, 100, 100, 100]
    assert (found == found[0]).all()


def test_shrinking_one_side_while_enlarging_the_other_averages_first():
    picture = grey([0], [100], [0], [100])

    found = resize(picture, Size(2, 1))[..., 0]

    assert found.tolist() == [[50, 50]]  # one bilinear step would see two of the four rows


def test_the_same_size_changes_nothing(rng):
    picture = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)

    np.testing.assert_array_equal(resize(picture, Size(7, 5)), picture)


@pytest.mark.parametrize(
    ("span", "count", "wanted"),
    [
        ((0.5, 2.5), 1, [100]),  # (0.5 * 0 + 100 + 0.5 * 200) / 2
        ((0.5, 2.5), 2, [50, 150]),
        ((0.0, 2.5), 1, [80]),  # (0 + 100 + 0.5 * 200) / 2.5
        ((1.25, 1.75), 1, [100]),  # within one pixel
        ((1.0, 3.0), 4, [100, 100, 200, 200]),
    ],
)
def test_spans_that_cut_pixels_by_hand(span, count, wanted):
    picture = row([0, 100, 200])

    across = resample(picture, span, (0.0, 1.0), Size(count, 1))
    down = resample(picture.swapaxes(0, 1), (0.0, 1.0), span, Size(1, count))

    assert across[0, :, 0].tolist() == wanted
    assert down[:, 0, 0].tolist() == wanted


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_a_thousandfold_picture(seed):
    """The reference enlarges each pixel to 1000 by 1 copies and takes plain means."""
    rng = np.random.default_rng(seed)
    length, count = int(rng.integers(4, 30)), int(rng.integers(1, 6))
    picture = rng.integers(0, 256, (1, length, 3), dtype=np.uint8)
    start = int(rng.integers(0, 1000))
    step = int(rng.integers(100, (length * 1000 - start) // count + 1))
    fine = np.repeat(picture[0], 1000, axis=0).astype(float)
    wanted = [fine[start + k * step : start + (k + 1) * step].mean(axis=0) for k in range(count)]

    span = (start / 1000, (start + count * step) / 1000)
    found = resample(picture, span, (0.0, 1.0), Size(count, 1))

    assert np.abs(found[0] - wanted).max() <= 0.51


def test_a_flat_picture_stays_flat(rng):
    picture = np.full((40, 50, 3), 245, np.uint8)

    for _ in range(20):
        across, down = rng.uniform(0, 10), rng.uniform(0, 10)
        found = resample(picture, (across, 49.3), (down, 38.7), Size(17, 13))
        assert (found == 245).all()


def test_what_changes_evenly_is_shown_exactly_where_it_is():
    """Colour 10 (t - 0.5) at t; the means of four parts of 1.25 pixels are those at their middles.

    By area alone, a part is off by as much as the pixels it cuts are uneven: 14, 26, 38, 52.
    """
    ramp = row([10 * i for i in range(8)])

    even = resample(ramp, (1.25, 6.25), (0, 1), Size(4, 1), even=True)
    by_area = resample(ramp, (1.25, 6.25), (0, 1), Size(4, 1))

    assert even[0, :, 0].tolist() == [14, 26, 39, 51]  # 13.75, 26.25, 38.75, 51.25
    assert by_area[0, :, 0].tolist() != even[0, :, 0].tolist()


def test_an_edge_bends_nothing_beside_it():
    """Flat parts stay flat, and nothing is darker or lighter than the picture."""
    edge = row([90, 90, 90, 255, 255, 255])

    found = resample(edge, (0.5, 5.9), (0, 1), Size(5, 1), even=True)[0, :, 0]

    assert found[:2].tolist() == [90, 90]
    assert found[3:].tolist() == [255, 255]
