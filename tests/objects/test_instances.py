import cv2
import numpy as np
import pytest

from xpath.errors import ConfigError, DataError, ResolutionError, ShapeError
from xpath.objects.instances import InstanceConfig, find_instances


def discs(*circles, size=128):
    canvas = np.zeros((size, size), np.uint8)
    for x, y, radius in circles:
        cv2.circle(canvas, (x, y), radius, 1, -1)
    return canvas.astype(bool)


def test_touching_discs_are_told_apart():
    mask = discs((30, 40, 16), (58, 40, 16), (86, 44, 16))

    found = find_instances(mask, "nuclei", mpp=0.25)

    assert len(found.areas) == 3
    assert np.array_equal(found.ids > 0, mask)
    assert found.ids.dtype == np.int32
    centres = {found.ids[40, 28], found.ids[40, 60], found.ids[44, 88]}
    assert centres == {1, 2, 3}
    # the border lies at the waist, half way
    border = np.flatnonzero(np.diff(found.ids[40, 20:70])) + 20
    assert len(border) == 1
    assert abs(border[0] - 44) <= 2


def test_areas_are_square_microns():
    mask = discs((30, 30, 10), (80, 80, 20))

    found = find_instances(mask, "nuclei", mpp=0.5)

    counts = np.bincount(found.ids.ravel())[1:]
    np.testing.assert_allclose(found.areas, counts * 0.25)
    np.testing.assert_allclose(found.areas.sum(), mask.sum() * 0.25)


def test_the_same_tissue_at_another_resolution_has_as_many_nuclei():
    fine = find_instances(discs((60, 80, 32), (116, 80, 32), size=256), "nuclei", mpp=0.125)
    coarse = find_instances(discs((30, 40, 16), (58, 40, 16)), "nuclei", mpp=0.25)

    assert len(fine.areas) == len(coarse.areas) == 2


def test_one_disc_with_a_rough_edge_stays_one(rng):
    canvas = discs((64, 64, 40)).astype(np.float32)
    rough = cv2.GaussianBlur(
        canvas + rng.normal(0, 1.0, canvas.shape).astype(np.float32), (0, 0), 2
    )
    mask = rough > 0.5
    whole = find_instances(mask, "nuclei", mpp=0.25)

    assert len(whole.areas[whole.areas > 20]) == 1


def test_an_ellipse_is_not_cut():
    canvas = np.zeros((128, 128), np.uint8)
    cv2.ellipse(canvas, (64, 64), (40, 16), 30, 0, 360, 1, -1)

    assert len(find_instances(canvas.astype(bool), "cell", mpp=0.25).areas) == 1


def test_small_specks_go_and_numbers_close_up():
    mask = discs((20, 20, 1), (60, 60, 12), (100, 100, 1), (100, 30, 12))
    found = find_instances(mask, "nuclei", mpp=0.25)

    assert np.unique(found.ids).tolist() == [0, 1, 2]
    everything = InstanceConfig(min_area=0.0)
    assert len(find_instances(mask, "nuclei", mpp=0.25, config=everything).areas) == 4


def test_small_holes_are_filled_in_nuclei_only():
    pierced = discs((64, 64, 20)) & ~discs((64, 64, 2))
    ring = discs((64, 64, 20)) & ~discs((64, 64, 10))

    assert find_instances(pierced, "nuclei", mpp=0.25).ids[64, 64] == 1
    assert find_instances(pierced, "tissue", mpp=0.25).ids[64, 64] == 0
    assert find_instances(ring, "nuclei", mpp=0.25).ids[64, 64] == 0
    all_filled = InstanceConfig(max_hole=100.0)
    assert find_instances(ring, "nuclei", mpp=0.25, config=all_filled).ids[64, 64] == 1


def test_a_bay_at_the_edge_of_the_image_is_no_hole():
    mask = np.ones((40, 40), bool)
    mask[10:20, :20] = False

    assert not find_instances(mask, "nuclei", mpp=0.25).ids[15, 5]


def test_tissue_is_what_hangs_together():
    mask = discs((30, 40, 16), (58, 40, 16), (100, 100, 10))
    mask[0, 0] = True

    found = find_instances(mask, "tissue", mpp=0.25)

    assert len(found.areas) == 2
    assert found.ids[40, 30] == found.ids[40, 58] != found.ids[100, 100]


@pytest.mark.parametrize("structure", ["nuclei", "tissue"])
def test_nothing_and_everything(structure):
    nothing = find_instances(np.zeros((9, 7), bool), structure, mpp=0.25)
    everything = find_instances(np.ones((90, 70), bool), structure, mpp=0.25)

    assert not nothing.ids.any()
    assert nothing.areas.shape == (0,)
    assert (everything.ids == 1).all()


def test_what_does_not_fit_is_refused():
    mask = np.zeros((8, 8), bool)
    with pytest.raises(DataError, match="bool"):
        find_instances(mask.astype(np.uint8), "nuclei", mpp=0.25)
    with pytest.raises(ShapeError):
        find_instances(mask[None], "nuclei", mpp=0.25)
    with pytest.raises(DataError, match="structure"):
        find_instances(mask, "organ", mpp=0.25)
    with pytest.raises(ResolutionError):
        find_instances(mask, "nuclei", mpp=float("nan"))
    with pytest.raises(ConfigError):
        InstanceConfig(min_area=-1)


def test_real_nuclei_are_counted(shared):
    """Joined to one mask, PanNuke's nuclei are found again."""
    folder = shared / "data" / "annotated" / "pannuke_exact" / "instances"
    paths = sorted(folder.glob("*.png"))
    if not paths:
        pytest.skip(f"no instance maps in {folder}")
    true = found = 0
    for path in paths:
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        true += len(np.unique(ids)) - 1
        found += len(find_instances(ids > 0, "nuclei", mpp=0.25).areas)

    assert abs(found - true) < 0.1 * true
