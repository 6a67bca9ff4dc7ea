import numpy as np
import pytest
from scipy import ndimage

from xpath.errors import ShapeError
from xpath.explain.null_masks import off_object, shifted, tissue_pixels

SIDE = 64
MASK = np.zeros((SIDE, SIDE), bool)
MASK[20:30, 25:45] = True
ALL_TISSUE = np.ones_like(MASK)


def dots(rng, share, radius=2):
    """Dots of a radius that cover a share of the patch."""
    mask = np.zeros((SIDE, SIDE), bool)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    while mask.mean() < share:
        y, x = rng.integers(0, SIDE, 2)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return mask


# on the rest of the patch


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("compact", [True, False])
def test_it_is_as_large_as_the_object_and_nowhere_on_it(share, compact):
    rng = np.random.default_rng(0)
    mask = dots(rng, share)
    if compact:
        mask[:], mask[: round(share * SIDE)] = False, True
    for _ in range(5):
        random = off_object(mask, ALL_TISSUE, rng)

        assert not (random & mask).any()
        assert random.sum() == min(mask.sum(), (~mask).sum())


def test_it_has_as_much_tissue_as_the_object():
    rng, tissue = np.random.default_rng(0), ndimage.gaussian_filter(
        np.random.default_rng(1).normal(size=(SIDE, SIDE)), 6
    ) > 0  # fmt: skip
    for _ in range(10):
        mask = shifted(MASK, rng)
        random = off_object(mask, tissue, rng)

        assert (random & tissue).sum() == (mask & tissue).sum()
        assert random.sum() == mask.sum()


def test_of_too_little_tissue_all_the_rest_is_taken():
    tissue = MASK.copy()
    tissue[40:44] = True  # 256 px

    random = off_object(np.roll(MASK, 2, axis=0), tissue, np.random.default_rng(0))

    rest = tissue & ~np.roll(MASK, 2, axis=0)
    assert (random & tissue).sum() == min(rest.sum(), (np.roll(MASK, 2, axis=0) & tissue).sum())
    full = off_object(np.ones_like(MASK), tissue, np.random.default_rng(0))
    assert not full.any()


def test_one_component_stays_about_one_and_many_stay_many():
    rng = np.random.default_rng(0)
    scattered = dots(rng, 0.1)
    count = ndimage.label(scattered, np.ones((3, 3)))[1]

    pieces = [
        ndimage.label(off_object(mask, ALL_TISSUE, rng), np.ones((3, 3)))[1]
        for mask in (MASK, scattered)
        for _ in range(10)
    ]

    assert np.median(pieces[:10]) <= 4  # cut by the edge, or around the object
    assert 0.5 * count < np.mean(pieces[10:]) < 2.5 * count


def test_it_falls_on_the_whole_rest_alike():
    rng = np.random.default_rng(0)
    small = np.zeros((16, 16), bool)
    small[4:8, 4:8] = True

    often = np.mean([off_object(small, np.ones_like(small), rng) for _ in range(3000)], axis=0)

    wanted = 16 / (256 - 16)
    assert often[small].max() == 0
    far = ndimage.distance_transform_cdt(~small, "chessboard") > 4
    np.testing.assert_allclose(often[far], wanted, atol=0.03)
    assert often[~small & ~far].mean() == pytest.approx(wanted, abs=0.03)


def test_its_seed_decides():
    one, again, other = (
        off_object(MASK, ALL_TISSUE, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )

    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(ShapeError, match="tissue"):
        off_object(MASK, ALL_TISSUE[:32], np.random.default_rng(0))


def test_glass_and_lumen_are_no_tissue():
    image = np.full((SIDE, SIDE, 3), (245, 243, 246), np.uint8)
    image[:, :32] = 210, 160, 200  # eosin
    image[20:40, 8:24] = 250  # a lumen
    noise = np.random.default_rng(0).integers(-12, 12, image.shape)

    tissue = tissue_pixels((image + noise).clip(0, 255).astype(np.uint8), 0.5)

    wanted = np.zeros((SIDE, SIDE), bool)
    wanted[:, :32] = True
    wanted[20:40, 8:24] = False
    inside = ndimage.binary_erosion(wanted, iterations=5, border_value=1)
    outside = ndimage.binary_erosion(~wanted, iterations=5, border_value=1)
    assert tissue[inside].all()
    assert not tissue[outside].any()


# anywhere


def test_a_shifted_mask_keeps_its_area_and_its_seed():
    rng, again = np.random.default_rng(3), np.random.default_rng(3)

    for _ in range(20):
        moved = shifted(MASK, rng)
        assert moved.sum() == MASK.sum()
        np.testing.assert_array_equal(moved, shifted(MASK, again))
    assert (moved != MASK).any()


def test_shifted_masks_fall_everywhere_alike():
    rng = np.random.default_rng(0)
    mask = MASK[16:48:2, 16:48:2]

    often = np.mean([shifted(mask, rng) for _ in range(1500)], axis=0)

    np.testing.assert_allclose(often, mask.mean(), atol=0.06)


def test_a_mask_that_is_not_square_stays_in_its_shape():
    assert shifted(MASK[:20], np.random.default_rng(0)).shape == (20, 64)
