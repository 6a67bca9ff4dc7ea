import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops

from xpath.errors import DataError, ResolutionError
from xpath.geometry import Size
from xpath.objects import measure as module
from xpath.objects.find import find_objects
from xpath.objects.measure import measure_objects, morphometry
from xpath.objects.rule import ObjectConfig

SIDE = 64


WHOLE = ObjectConfig(min_area_um2=0)


@pytest.fixture
def table_of(masks_of, tiles):
    """Objects of a picture (L, H, W) of the whole slide, cut into patches."""

    def make(picture, labels, *, side=SIDE, step=0, scale=1, mpp=0.5, config=WHOLE):
        planes, corners = tiles(picture, side, step)
        size = Size(*(scale * length for length in picture.shape[:0:-1]))
        coords = np.multiply(corners, scale)
        masks = masks_of(planes, coords, labels=labels, scale=scale, mpp=mpp, slide=size)
        return find_objects(masks, config)

    return make


def disc(side, centre, radius):
    y, x = np.mgrid[:side, :side] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def test_a_square_by_hand(table_of):
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, 10:30, 20:40] = True  # 20 px of 0.5 um a side

    (square,) = measure_objects(table_of(picture, ["a"]))

    assert (square.x, square.y) == (30, 20)
    assert square.area_um2 == pytest.approx(100)
    assert square.perimeter_um == pytest.approx(40, rel=0.07)
    assert square.circularity == pytest.approx(0.9, abs=0.01)
    assert square.solidity == 1
    assert square.eccentricity == pytest.approx(0, abs=1e-6)
    # an ellipse's axis is four standard deviations; a square's is 4 * side / sqrt(12)
    assert square.length_um == pytest.approx(10 * 4 / math.sqrt(12), rel=0.01)


def test_shapes_are_those_of_regionprops(table_of):
    """Of random components, and of one a pixel wide."""
    rng = np.random.default_rng(5)
    smooth = gaussian_filter(rng.standard_normal((3 * SIDE, 3 * SIDE)), 3)
    picture = (smooth > 0.05)[None]
    picture[0, 100:110, 90:104] = False
    picture[0, 105, 92:102] = True
    config = ObjectConfig(min_area_um2=0, separate=False, smoothing_um=0, max_hole_um2=0)

    objects = measure_objects(table_of(picture, ["a"], mpp=1.0, config=config))

    regions = regionprops(label(picture[0], connectivity=1))
    assert len(objects) == len(regions) > 10
    columns = ["perimeter_um", "length_um", "width_um", "solidity", "eccentricity"]
    wanted = [
        "perimeter_crofton", "axis_major_length", "axis_minor_length", "solidity", "eccentricity",
    ]  # fmt: skip
    found = sorted([each.area_um2] + [getattr(each, name) for name in columns] for each in objects)
    known = sorted([each.area] + [getattr(each, name) for name in wanted] for each in regions)
    np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-7)


def test_a_disc_is_round_and_a_bar_is_not(table_of):
    picture = np.zeros((2, 128, 128), bool)
    picture[0] = disc(128, (64, 64), 40)
    picture[1, 60:64, 10:110] = True  # 4 x 100 px

    round_one, bar = measure_objects(table_of(picture, ["disc", "bar"], side=128, mpp=1.0))

    assert round_one.area_um2 == pytest.approx(math.pi * 1600, rel=0.01)
    assert round_one.perimeter_um == pytest.approx(2 * math.pi * 40, rel=0.02)
    assert round_one.circularity > 0.97
    assert round_one.eccentricity < 0.05
    assert round_one.length_um == pytest.approx(80, rel=0.01)
    assert bar.circularity < 0.2
    assert bar.eccentricity > 0.99
    assert bar.length_um / bar.width_um == pytest.approx(25, rel=0.1)


def test_a_ring_and_a_cross_are_not_solid(table_of):
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, 10:40, 20:30] = picture[0, 20:30, 10:40] = True  # arms of 10 px

    (cross,) = measure_objects(table_of(picture, ["a"]))

    # five squares of nine; the hull cuts the four corners in half
    assert cross.solidity == pytest.approx(5 / 7, rel=0.05)


def test_corners_do_not_join_and_too_small_only_has_area(table_of):
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, :10, :10] = picture[0, 10:20, 10:20] = True  # 100 px each
    picture[0, 40:44, 40:44] = True  # 16 px, 4 um2
    config = ObjectConfig(min_area_um2=5.0)

    (row,) = morphometry(table_of(picture, ["a"], config=config), slide_id="s")

    assert row.count == 2
    assert row.area_um2 == pytest.approx(216 * 0.25)
    assert row.area_mean_um2 == pytest.approx(25)
    assert row.rule == config.sentence(0.5)
    assert morphometry(table_of(picture, ["a"]), slide_id="s")[0].count == 3


def test_numbers_of_a_label_by_hand(table_of):
    picture = np.zeros((1, 128, 128), bool)
    for x in (10, 40, 80):
        picture[0, 50:54, x : x + 4] = True  # centres 30 and 40 px apart

    (row,) = morphometry(table_of(picture, ["a"]), slide_id="s")

    assert (row.slide_id, row.label, row.count) == ("s", "a", 3)
    assert row.area_um2 == 3 * 16 * 0.25
    assert row.area_fraction == pytest.approx(48 / 128**2)
    assert row.density_mm2 == pytest.approx(3 / (64e-3) ** 2)
    assert (row.area_median_um2, row.area_sd_um2) == (4, 0)
    near = np.array([15, 15, 20])
    assert row.nearest_um == pytest.approx(near.mean())
    assert row.nearest_sd_um == pytest.approx(near.std(ddof=1))
    assert row.clark_evans == pytest.approx(near.mean() / (0.5 / math.sqrt(3 / 64**2)))


@pytest.mark.parametrize("overlap", [0, 16])
@pytest.mark.parametrize("scale", [1, 2])
def test_cuts_between_patches_change_nothing(overlap, scale, table_of):
    rng = np.random.default_rng(0)
    picture = np.zeros((2, 160, 160), bool)
    for row, column, radius in rng.uniform((10, 10, 3), (150, 150, 20), (12, 3)):
        picture[int(radius > 10)] |= disc(160, (row, column), radius)

    whole = table_of(picture, "ab", side=160)
    cut = table_of(picture, "ab", step=SIDE - overlap, scale=scale, mpp=0.5 / scale)

    looked_at = (SIDE + (160 - 1) // (SIDE - overlap) * (SIDE - overlap)) ** 2
    rows = [morphometry(table, slide_id="s") for table in (whole, cut)]
    for one, other in zip(*rows, strict=True):
        assert one.count == other.count > 0
        for name in ("area_um2", "length_um", "circularity", "solidity", "nearest_um"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), nan_ok=True), name
        assert other.area_fraction == pytest.approx(one.area_um2 / (looked_at * 0.25))
    np.testing.assert_allclose(np.sort(cut.centres, axis=0), np.sort(whole.centres, axis=0) * scale)


def test_a_label_that_is_absent_has_zeros_and_no_shape(table_of):
    (row,) = morphometry(table_of(np.zeros((1, SIDE, SIDE), bool), ["a"]), slide_id="s")

    assert (row.area_um2, row.area_fraction, row.count, row.density_mm2) == (0, 0, 0, 0)
    alone = (row.area_mean_um2, row.circularity, row.nearest_um, row.clark_evans, row.area_sd_um2)
    assert np.isnan(alone).all()


def test_one_object_has_no_neighbour(table_of):
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, :20, :20] = True

    (row,) = morphometry(table_of(picture, ["a"]), slide_id="s")

    assert row.count == 1
    assert np.isnan([row.nearest_um, row.clark_evans, row.area_sd_um2]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2)])
def test_the_smallest_objects_are_measured_without_a_warning(size, table_of):
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, 5 : 5 + size[0], 5 : 5 + size[1]] = True

    (row,) = measure_objects(table_of(picture, ["a"]))

    assert row.area_um2 == size[0] * size[1] * 0.25
    assert 0 < row.circularity <= 1
    assert row.solidity == 1


def test_an_object_too_large_for_a_picture_keeps_area_and_centre(monkeypatch, table_of):
    picture = np.zeros((1, 2 * SIDE, 2 * SIDE), bool)
    picture[0, 10:100, 20:120] = True
    table = table_of(picture, ["a"])
    (whole,) = measure_objects(table)

    monkeypatch.setattr(module, "LARGEST", 100)
    (vast,) = measure_objects(table)

    assert vast.area_um2 == whole.area_um2
    assert (vast.x, vast.y) == pytest.approx((whole.x, whole.y))
    assert math.isnan(vast.circularity)
    assert math.isnan(morphometry(table, slide_id="s")[0].solidity)


def test_what_cannot_be_measured_is_refused(table_of):
    empty = np.zeros((1, SIDE, SIDE), bool)

    with pytest.raises(DataError, match="fat"):
        measure_objects(table_of(empty, ["a"]), ["fat"])
    with pytest.raises(ResolutionError, match="--mpp"):
        morphometry(table_of(empty, ["a"], mpp=None), slide_id="s")
