import math

import numpy as np
import pytest
from skimage.measure import perimeter, regionprops
from skimage.morphology import convex_hull_image

from xpath.metrics.instances import find_instances
from xpath.metrics.shape import (
    boundary_length,
    box_ratio,
    convex_ratio,
    dispersion,
    inertia_ratio,
    instance_ratio,
    irregularity,
    shape_traits,
)


def square(side=10, size=30, at=5):
    mask = np.zeros((size, size), bool)
    mask[at : at + side, at : at + side] = True
    return mask


def disc(radius=100):
    y, x = np.mgrid[-radius - 5 : radius + 6, -radius - 5 : radius + 6]
    return x * x + y * y <= radius * radius


def test_a_square_by_hand():
    """Chain of 36 pixels; inertia of side n is n^2 (n^2 - 1) / 6."""
    mask = square()

    assert boundary_length(mask) == perimeter(mask, 4) == 36
    assert irregularity(mask) == pytest.approx(1 - 4 * math.pi * 100 / 36**2)
    assert inertia_ratio(mask) == pytest.approx(3 / math.pi * 100 / 99)
    assert box_ratio(mask) == convex_ratio(mask) == 1
    assert instance_ratio(find_instances(mask)) == pytest.approx(100 / 900)
    assert dispersion(find_instances(mask)) == 0


def test_a_full_image_is_where_the_papers_table_8_has_its_best_interval():
    """Full masks fall into [0.20, 0.25), discs into [0.10, 0.15)."""
    assert irregularity(np.ones((1024, 1024), bool)) == pytest.approx(0.213, abs=5e-4)
    assert irregularity(disc(400)) == pytest.approx(0.100, abs=5e-3)


def test_holes_and_pieces_make_irregular():
    whole, holed = square(20), square(20)
    holed[12:18, 12:18] = False
    two = square(10) | square(10, at=18)

    around_hole = 4 * 5 + 4 * math.sqrt(2)  # four sides of six pixels, corners cut
    assert boundary_length(holed) == pytest.approx(4 * 19 + around_hole)
    assert irregularity(whole) < irregularity(holed)
    assert irregularity(square(10)) < irregularity(two)
    assert irregularity(two) == pytest.approx(1 - 4 * math.pi * 200 / 72**2)


def test_round_and_long():
    bar = np.zeros((9, 120), bool)
    bar[4, 10:110] = True

    assert inertia_ratio(disc()) == pytest.approx(1, abs=1e-3)
    assert inertia_ratio(bar) == pytest.approx(100**2 * 12 / (2 * math.pi * 100 * (100**2 - 1)))
    assert irregularity(bar) > 0.9
    assert convex_ratio(bar) == box_ratio(bar) == 1
    assert box_ratio(disc()) == pytest.approx(math.pi / 4, rel=0.01)


@pytest.mark.parametrize("share", [0.003, 0.05, 0.5])
def test_the_hull_is_that_of_scikit_image(rng, share):
    mask = rng.random((50, 70)) < share

    assert convex_ratio(mask) == pytest.approx(mask.sum() / convex_hull_image(mask).sum())
    assert box_ratio(mask) == pytest.approx(regionprops(mask.astype(int))[0].extent)


@pytest.mark.parametrize("turn", [lambda m: m.T, lambda m: m[::-1], lambda m: np.rot90(m)])
def test_turning_changes_nothing(rng, turn):
    mask = np.kron(rng.random((9, 12)) < 0.4, np.ones((7, 7), bool))

    assert shape_traits(turn(mask)) == pytest.approx(shape_traits(mask))


def test_dispersion_by_hand_and_by_brute_force(rng):
    mask = np.zeros((120, 200), bool)
    for y, x in ((10, 10), (10, 150), (90, 10), (100, 40)):
        mask[y : y + 7, x : x + 7] = True
    mask[110:112, 190:192] = True  # farther away, but a speck

    assert dispersion(find_instances(mask)) == pytest.approx(math.hypot(140, 80))

    found = find_instances(rng.random((90, 90)) < 0.2, min_pixels=1)
    gaps = found.centroid[:, None] - found.centroid[None]
    assert dispersion(found) == pytest.approx(np.sqrt((gaps**2).sum(axis=2)).max())


def test_instance_ratio_is_the_mean_of_instances():
    mask = np.zeros((50, 40), bool)
    mask[:10, :10] = True
    mask[20:26, 20:30] = True

    assert instance_ratio(find_instances(mask)) == pytest.approx((100 + 60) / 2 / 2000)
    assert shape_traits(mask).instance_count == 2


def test_nothing_has_no_shape_and_a_pixel_is_round():
    nothing = shape_traits(np.zeros((9, 9), bool))
    assert nothing.instance_count == 0
    assert all(math.isnan(value) for value in (*nothing[:2], *nothing[3:]))

    pixel = np.zeros((9, 9), bool)
    pixel[3, 4] = True
    traits = shape_traits(pixel, min_pixels=1)
    assert traits == (0.0, 1 / 81, 1, 0.0, 1.0, 1.0, 1.0)
