"""Levels made strip by strip are those made from the whole picture."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.export.pyramid import halved, level_sizes, tile_rows
from xpath.geometry import Size


def test_sizes_halve_and_round_up():
    sizes = level_sizes(Size(1025, 3), 256)

    assert sizes == (Size(1025, 3), Size(513, 2), Size(257, 1), Size(129, 1))


def test_halves_by_hand():
    numbers = np.array([[1, -3, np.nan], [2, 4, -5], [np.nan, np.nan, 7]], np.float32)

    np.testing.assert_array_equal(halved(numbers), [[1, -5], [np.nan, 7]])
    colours = np.array([[[10], [20], [31]], [[30], [41], [33]]], np.uint8).repeat(3, axis=2)
    assert halved(colours)[..., 0].tolist() == [[25, 32]]


def test_what_is_transparent_does_not_bleed_in():
    red, nothing = [200, 0, 0, 255], [0, 0, 0, 0]

    half = halved(np.array([[red, nothing], [nothing, nothing]], np.uint8))

    assert half.tolist() == [[[200, 0, 0, 64]]]


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
@pytest.mark.parametrize("strip", [1, 5, 16, 100])
def test_rows_are_cut_from_the_whole_levels(rng, channels, strip):
    size = Size(45, 67)
    image = rng.integers(0, 256, (67, 45, *channels)).astype(np.uint8 if channels else np.float32)
    sizes = level_sizes(size, 8)
    levels = [image]
    for _ in sizes[1:]:
        levels.append(halved(levels[-1]))

    rows = list(tile_rows((image[y : y + strip] for y in range(0, 67, strip)), sizes, 8))

    for number, (level, its) in enumerate(zip(levels, sizes, strict=True)):
        assert level.shape[:2] == (its.height, its.width)
        mine = [row for row in rows if row.level == number]
        assert [row.row for row in mine] == list(range(-(-its.height // 8)))
        for row in mine:
            np.testing.assert_array_equal(row.pixels, level[row.row * 8 : (row.row + 1) * 8])


def test_strips_that_do_not_fit_are_refused():
    sizes = level_sizes(Size(4, 4), 4)

    for strips in ([np.zeros((4, 5))], [np.zeros((3, 4))], [np.zeros((5, 4))]):
        with pytest.raises(DataError, match="strip"):
            list(tile_rows(strips, sizes, 4))
