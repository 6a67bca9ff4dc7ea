import csv
import math

import numpy as np
import pytest

from xpath.errors import ConfigError, DataError, ResolutionError
from xpath.geometry import PatchGrid, Size
from xpath.objects import morphometry as module
from xpath.objects.morphometry import measure_objects, morphometry, write_table

SIDE = 64


class Masks:
    """What ``SlideMasks`` offers, cut from a picture (L, H, W) of the whole slide."""

    def __init__(self, picture, labels, *, side=SIDE, overlap=0, mpp=0.5, footprint=None):
        height, width = picture.shape[1:]
        step = side - overlap
        corners = [
            (x, y)
            for y in range(0, max(1, height - overlap), step)
            for x in range(0, max(1, width - overlap), step)
        ]
        scale = (footprint or side) / side
        self.grid = PatchGrid(
            coords=np.rint(np.array(corners) * scale).astype(np.int64),
            footprint=footprint or side,
            pixels=side,
            mpp=mpp,
            overlap=round(overlap * scale),
            slide_size=Size(int(width * scale), int(height * scale)),
            slide_mpp=mpp,
        )
        padded = np.pad(picture, ((0, 0), (0, side), (0, side)))
        self._masks = np.stack([padded[:, y : y + side, x : x + side] for x, y in corners])
        self.labels, self.size = tuple(labels), side
        self.area = self._masks.sum(axis=(2, 3))

    def read(self, patches):
        return self._masks[patches]


def disc(side, centre, radius):
    y, x = np.mgrid[:side, :side] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def test_a_square_by_hand():
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, 10:30, 20:40] = True  # 20 px of 0.5 um a side

    (square,) = measure_objects(Masks(picture, ["a"]))

    assert (square.x, square.y) == (30, 20)
    assert square.area_um2 == pytest.approx(100)
    assert square.perimeter_um == pytest.approx(40, rel=0.07)
    assert square.circularity == pytest.approx(0.9, abs=0.01)
    assert square.solidity == 1
    assert square.eccentricity == pytest.approx(0, abs=1e-6)
    # an ellipse's axis is four standard deviations; a square's is 4 * side / sqrt(12)
    assert square.length_um == pytest.approx(10 * 4 / math.sqrt(12), rel=0.01)


def test_a_disc_is_round_and_a_bar_is_not():
    picture = np.zeros((2, 128, 128), bool)
    picture[0] = disc(128, (64, 64), 40)
    picture[1, 60:64, 10:110] = True  # 4 x 100 px

    round_one, bar = measure_objects(Masks(picture, ["disc", "bar"], side=128, mpp=1.0))

    assert round_one.area_um2 == pytest.approx(math.pi * 1600, rel=0.01)
    assert round_one.perimeter_um == pytest.approx(2 * math.pi * 40, rel=0.02)
    assert round_one.circularity > 0.97
    assert round_one.eccentricity < 0.05
    assert round_one.length_um == pytest.approx(80, rel=0.01)
    assert bar.circularity < 0.2
    assert bar.eccentricity > 0.99
    assert bar.length_um / bar.width_um == pytest.approx(25, rel=0.1)


def test_a_ring_and_a_cross_are_not_solid():
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, 10:40, 20:30] = picture[0, 20:30, 10:40] = True  # arms of 10 px

    (cross,) = measure_objects(Masks(picture, ["a"]))

    # five squares of nine; the hull cuts the four corners in half
    assert cross.solidity == pytest.approx(5 / 7, rel=0.05)


def test_corners_touch_and_specks_only_have_area():
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, :10, :10] = picture[0, 10:20, 10:20] = True  # one object of 200 px
    picture[0, 40:44, 40:44] = True  # 16 px, 4 um2

    (row,) = morphometry(Masks(picture, ["a"]), slide_id="s", min_area_um2=5.0)

    assert row.count == 1
    assert row.area_um2 == pytest.approx(216 * 0.25)
    assert row.area_mean_um2 == pytest.approx(50)
    assert morphometry(Masks(picture, ["a"]), slide_id="s", min_area_um2=4.0)[0].count == 2


def test_numbers_of_a_kind_by_hand():
    picture = np.zeros((1, 128, 128), bool)
    for x in (10, 40, 80):
        picture[0, 50:54, x : x + 4] = True  # centres 30 and 40 px apart

    (row,) = morphometry(Masks(picture, ["a"]), slide_id="s", min_area_um2=0.0)

    assert (row.slide_id, row.kind, row.count) == ("s", "a", 3)
    assert row.area_um2 == 3 * 16 * 0.25
    assert row.area_fraction == pytest.approx(48 / 128**2)
    assert row.density_mm2 == pytest.approx(3 / (64e-3) ** 2)
    assert (row.area_median_um2, row.area_sd_um2) == (4, 0)
    near = np.array([15, 15, 20])
    assert row.nearest_um == pytest.approx(near.mean())
    assert row.nearest_sd_um == pytest.approx(near.std(ddof=1))
    assert row.clark_evans == pytest.approx(near.mean() / (0.5 / math.sqrt(3 / 64**2)))


@pytest.mark.parametrize("overlap", [0, 16])
@pytest.mark.parametrize("footprint", [SIDE, 2 * SIDE])
def test_cuts_between_patches_change_nothing(overlap, footprint):
    rng = np.random.default_rng(0)
    picture = np.zeros((2, 160, 160), bool)
    for row, column, radius in rng.uniform((10, 10, 3), (150, 150, 20), (12, 3)):
        picture[int(radius > 10)] |= disc(160, (row, column), radius)
    scale = footprint / SIDE

    whole = morphometry(Masks(picture, "ab", side=160), slide_id="s")
    cut = Masks(picture, "ab", overlap=overlap, footprint=footprint)
    tiles = morphometry(cut, slide_id="s")

    looked_at = (SIDE + math.ceil((160 - SIDE) / (SIDE - overlap)) * (SIDE - overlap)) ** 2
    for one, other in zip(whole, tiles, strict=True):
        assert one.count == other.count > 0
        for name in ("area_um2", "length_um", "circularity", "solidity", "nearest_um"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), nan_ok=True), name
        assert other.area_fraction == pytest.approx(one.area_um2 / (looked_at * 0.25))
    centres = [(o.x, o.y) for o in measure_objects(cut)]
    wanted = [(o.x * scale, o.y * scale) for o in measure_objects(Masks(picture, "ab", side=160))]
    np.testing.assert_allclose(sorted(centres), sorted(wanted))


def test_a_kind_that_is_absent_has_zeros_and_no_shape():
    (row,) = morphometry(Masks(np.zeros((1, SIDE, SIDE), bool), ["a"]), slide_id="s")

    assert (row.area_um2, row.area_fraction, row.count, row.density_mm2) == (0, 0, 0, 0)
    alone = (row.area_mean_um2, row.circularity, row.nearest_um, row.clark_evans, row.area_sd_um2)
    assert np.isnan(alone).all()


def test_one_object_has_no_neighbour():
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, :20, :20] = True

    (row,) = morphometry(Masks(picture, ["a"]), slide_id="s")

    assert row.count == 1
    assert np.isnan([row.nearest_um, row.clark_evans, row.area_sd_um2]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2)])
def test_the_smallest_objects_are_measured_without_a_warning(size):
    picture = np.zeros((1, SIDE, SIDE), bool)
    picture[0, 5 : 5 + size[0], 5 : 5 + size[1]] = True

    (row,) = measure_objects(Masks(picture, ["a"]), min_area_um2=0.0)

    assert row.area_um2 == size[0] * size[1] * 0.25
    assert 0 < row.circularity <= 1
    assert row.solidity == 1


def test_an_object_too_large_for_a_picture_keeps_area_and_centre(monkeypatch):
    picture = np.zeros((1, 2 * SIDE, 2 * SIDE), bool)
    picture[0, 10:100, 20:120] = True
    masks = Masks(picture, ["a"])
    (whole,) = measure_objects(masks)

    monkeypatch.setattr(module, "LARGEST", 100)
    (vast,) = measure_objects(masks)

    assert vast.area_um2 == whole.area_um2
    assert (vast.x, vast.y) == pytest.approx((whole.x, whole.y))
    assert math.isnan(vast.circularity)
    assert math.isnan(morphometry(masks, slide_id="s")[0].solidity)


def test_tables_have_empty_cells_where_there_is_no_number(tmp_path):
    picture = np.zeros((2, SIDE, SIDE), bool)
    picture[0, :20, :20] = True

    write_table(tmp_path / "m.csv", morphometry(Masks(picture, "ab"), slide_id="s"))

    with (tmp_path / "m.csv").open() as file:
        one, none = csv.DictReader(file)
    assert (one["kind"], one["count"], float(one["area_um2"])) == ("a", "1", 100)
    assert (none["count"], none["area_fraction"], none["circularity"]) == ("0", "0", "")
    with pytest.raises(DataError, match="no rows"):
        write_table(tmp_path / "m.csv", [])


def test_what_cannot_be_measured_is_refused():
    masks = Masks(np.zeros((1, SIDE, SIDE), bool), ["a"])

    with pytest.raises(DataError, match="fat"):
        measure_objects(masks, ["fat"])
    with pytest.raises(ConfigError, match="min_area_um2"):
        measure_objects(masks, min_area_um2=-1.0)
    with pytest.raises(ResolutionError, match="--mpp"):
        morphometry(Masks(np.zeros((1, SIDE, SIDE), bool), ["a"], mpp=None), slide_id="s")
