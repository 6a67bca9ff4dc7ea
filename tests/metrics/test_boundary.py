import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import hausdorff_distance

from xpath.errors import DataError, ShapeError
from xpath.metrics.boundary import (
    edge,
    edge_distances,
    hausdorff,
    mean_surface_distance,
    surface_dice,
)


def column(at, height=10, width=40):
    mask = np.zeros((height, width), bool)
    mask[:, at] = True
    return mask


def blobs(rng, size=(60, 70)):
    return ndimage.gaussian_filter(rng.random(size), 4) > 0.5


def test_two_lines_by_hand():
    distances = edge_distances(column(5), column(8))

    assert hausdorff(distances) == hausdorff(distances, percentile=100) == 3
    assert surface_dice(distances, tolerance=2.9) == 0
    assert surface_dice(distances, tolerance=3) == 1


def test_a_far_pixel_is_forgiven_by_the_95th_percentile():
    mask, truth = column(5, height=100), column(5, height=100)
    mask[50, 35] = True

    distances = edge_distances(mask, truth)

    assert hausdorff(distances, percentile=100) == 30
    assert hausdorff(distances) == 0
    assert surface_dice(distances, tolerance=1) == pytest.approx(200 / 201)


def test_the_distance_is_that_of_scikit_image_and_scipy(rng):
    mask, truth = blobs(rng), blobs(rng)

    distances = edge_distances(mask, truth)

    wanted = hausdorff_distance(edge(mask), edge(truth))
    assert hausdorff(distances, percentile=100) == pytest.approx(wanted, rel=1e-6)
    away = ndimage.distance_transform_edt(~edge(truth))[edge(mask)]
    assert distances.to_truth == pytest.approx(away, rel=1e-6)


def test_the_edge_is_what_erosion_takes_away(rng):
    mask = blobs(rng)

    assert np.array_equal(edge(mask), mask & ~ndimage.binary_erosion(mask))
    assert edge(np.ones((5, 6), bool)).sum() == 18


def test_it_does_not_matter_which_is_the_truth(rng):
    mask, truth = blobs(rng), blobs(rng)
    there, back = edge_distances(mask, truth), edge_distances(truth, mask)

    assert hausdorff(there) == hausdorff(back)
    assert surface_dice(there, tolerance=2) == surface_dice(back, tolerance=2)


def test_empty_masks():
    nothing = np.zeros((10, 40), bool)
    both, one = edge_distances(nothing, nothing), edge_distances(nothing, column(5))

    assert (hausdorff(both), surface_dice(both, tolerance=1)) == (0, 1)
    assert (hausdorff(one), surface_dice(one, tolerance=99)) == (math.inf, 0)


def test_unfit_masks_are_refused():
    with pytest.raises(ShapeError, match="one shape"):
        edge_distances(column(5), column(5, height=9))
    with pytest.raises(DataError, match="boolean"):
        edge_distances(column(5), column(5).astype(int))


def test_the_mean_surface_distance_by_hand():
    mask, truth = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    mask[4, 4], truth[4, 7] = True, True
    assert mean_surface_distance(edge_distances(mask, truth)) == 3.0
    truth[4, 4] = True  # the mask's one pixel has distance 0, the truth's two 0 and 3
    assert mean_surface_distance(edge_distances(mask, truth)) == pytest.approx(1.0)
    nothing = np.zeros((9, 9), bool)
    assert mean_surface_distance(edge_distances(nothing, nothing)) == 0.0
    assert mean_surface_distance(edge_distances(mask, nothing)) == np.inf
