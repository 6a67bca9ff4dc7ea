"""Outlines run along the borders of pixels: true areas, valid rings, whole across strips."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from xpath.objects.outline import Outliner, Window


def ring_area(ring):
    """Signed area of a closed ring, positive from x towards y (shoelace)."""
    x, y = ring.T
    return np.dot(x[:-1], y[1:]) / 2 - np.dot(x[1:], y[:-1]) / 2


def trace(mask, strip=1000, windows=()):
    outliner = Outliner(mask.shape[1])
    pieces = []
    for top in range(0, len(mask), strip):
        bottom = top + strip
        inside = [w for w in windows if w.top < bottom and w.bottom > top]
        pieces += outliner.add(mask[top:bottom], inside)
    return pieces + outliner.finish()


def filled(rings, shape):
    """Pixels whose centre is inside by the even-odd rule, ring by ring and edge by edge."""
    inside = np.zeros(shape, bool)
    x, y = np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            assert (x0 == x1) != (y0 == y1)  # along pixel borders
            if x0 == x1:
                rows = (y > min(y0, y1)) & (y < max(y0, y1))
                inside ^= rows[:, None] & (x < x0)[None]
    return inside


def canonical(pieces):
    return sorted((tuple(p.rings[0][0]), p.pixels, len(p.rings)) for p in pieces)


def test_a_square_with_a_hole_by_hand():
    mask = np.zeros((30, 30), bool)
    mask[5:15, 7:17] = True
    mask[8:11, 9:13] = False

    (piece,) = trace(mask)

    assert piece.rings[0].tolist() == [[7, 5], [17, 5], [17, 15], [7, 15], [7, 5]]
    assert [ring_area(ring) for ring in piece.rings] == [100, -12]
    assert piece.pixels == 88


def test_what_touches_in_a_point_is_apart():
    mask = np.array([[1, 0], [0, 1]], bool)

    assert [piece.pixels for piece in trace(mask)] == [1, 1]


@pytest.mark.parametrize("flip", [1, -1])
def test_a_ring_that_closes_in_a_point_is_an_outline_and_a_hole(flip):
    """Round the middle pixel, the piece meets itself at a corner only."""
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]], bool)[:, ::flip]

    (piece,) = trace(mask)

    assert [ring_area(ring) for ring in piece.rings] == [12, -1]
    for ring in piece.rings:
        assert len({tuple(point) for point in ring[:-1]}) == len(ring) - 1  # no point twice


@pytest.mark.parametrize("strip", [1, 3, 7, 64])
@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
def test_noise_is_traced_exactly_however_it_is_cut(rng, strip, share):
    from scipy import ndimage

    mask = rng.random((40, 50)) < share

    pieces = trace(mask, strip)

    labelled, count = ndimage.label(mask)
    assert len(pieces) == count
    total = np.zeros(mask.shape, int)
    for piece in pieces:
        inside = filled(piece.rings, mask.shape)
        total += inside
        assert inside.sum() == piece.pixels == sum(ring_area(ring) for ring in piece.rings)
        assert len(np.unique(labelled[inside])) == 1
        for ring in piece.rings:
            assert len({tuple(point) for point in ring[:-1]}) == len(ring) - 1
    np.testing.assert_array_equal(total, mask)
    assert canonical(pieces) == canonical(trace(mask))


def test_rings_are_valid_polygons(rng):
    shapely = pytest.importorskip("shapely")

    for piece in trace(rng.random((60, 60)) < 0.62, 16):
        polygon = shapely.Polygon(piece.rings[0], piece.rings[1:])
        assert polygon.is_valid
        assert polygon.area == piece.pixels


def test_shares_of_patches_are_counted_once_per_patch():
    mask = np.ones((10, 8), bool)
    windows = [Window(0, 0, 0, 5, 8), Window(7, 2, 1, 10, 3)]  # they overlap; strips cut the second

    (piece,) = trace(mask, 4, windows)

    assert piece.patches.tolist() == [0, 7]
    assert piece.counts.tolist() == [40, 16]
    assert piece.pixels == 80


def test_nothing_gives_nothing():
    assert trace(np.zeros((5, 6), bool)) == []
