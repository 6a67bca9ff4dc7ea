import numpy as np
import pytest

from xpath.errors import ShapeError
from xpath.explain.maps import object_map, object_shares, patch_map, patch_object_map
from xpath.geometry import Size


def test_patches_are_painted_where_they_lie(make_grid):
    grid = make_grid([[0, 0], [20, 10]], 10, (40, 20))

    painted = patch_map(np.array([3.0, -1.0]), grid, Size(4, 2))

    nan = np.nan
    np.testing.assert_allclose(painted, [[3, nan, nan, nan], [nan, nan, -1, nan]])


def test_scores_of_overlapping_patches_are_averaged(make_grid):
    grid = make_grid([[0, 0], [10, 0]], 20, (30, 20))

    painted = patch_map(np.array([1.0, 3.0]), grid, Size(3, 2))

    np.testing.assert_allclose(painted, [[1, 2, 3], [1, 2, 3]])


def test_patches_smaller_than_a_pixel_are_not_lost(make_grid):
    grid = make_grid([[0, 0], [5, 0], [95, 95]], 5, (100, 100))

    painted = patch_map(np.array([1.0, 3.0, 7.0]), grid, Size(2, 2))

    np.testing.assert_allclose(painted, [[2, np.nan], [np.nan, 7]])


def test_patches_at_the_rim_are_cut_off(make_grid):
    grid = make_grid([[5, 5]], 10, (10, 10))

    painted = patch_map(np.array([2.0]), grid, Size(2, 2))

    np.testing.assert_allclose(painted, [[np.nan, np.nan], [np.nan, 2]])


def test_there_is_a_score_for_every_patch(make_grid):
    with pytest.raises(ShapeError):
        patch_map(np.zeros(2), make_grid([[0, 0]], 10, (10, 10)), Size(2, 2))


@pytest.fixture
def example(make_grid, make_masks):
    """Three patches with two objects, the second nowhere in the last."""
    drawn = np.random.default_rng(0).random((3, 2, 16, 16)) > 0.8
    drawn[2, 1] = False
    grid = make_grid([[0, 0], [32, 0], [32, 32]], 32, (96, 64))
    return make_masks(grid, ("tumor", "fat"), drawn), drawn


def level_zero(masks, drawn):
    """Every object at level 0, (L, 64, 96)."""
    slide = np.zeros((2, 64, 96))
    for box, mask in zip(masks.grid.boxes(), drawn, strict=True):
        slide[:, box.y : box.bottom, box.x : box.right] = mask.repeat(2, 1).repeat(2, 2)
    return slide


@pytest.mark.parametrize("size", [Size(96, 64), Size(24, 16), Size(12, 8)])
def test_shares_equal_a_slow_average_of_all_pixels(example, size):
    masks, drawn = example
    step = 96 // size.width

    shares = object_shares(masks, size)

    slow = level_zero(masks, drawn).reshape(2, size.height, step, size.width, step)
    np.testing.assert_allclose(shares, slow.mean(axis=(2, 4)), atol=1e-6)


@pytest.mark.parametrize("size", [Size(37, 25), Size(7, 3), Size(1, 1)])
def test_no_area_is_lost_at_any_size(example, size):
    masks, drawn = example

    shares = object_shares(masks, size)

    pixel = 96 * 64 / (size.width * size.height)
    np.testing.assert_allclose(
        shares.sum(axis=(1, 2)) * pixel, drawn.sum(axis=(0, 2, 3)) * 4, rtol=1e-5
    )


def test_masks_of_overlapping_patches_are_averaged(make_grid, make_masks):
    grid = make_grid([[0, 0], [8, 0]], 16, (24, 16))
    drawn = np.zeros((2, 2, 16, 16))
    drawn[:, 0] = drawn[0, 1] = 1  # the second object is in the first patch only
    masks = make_masks(grid, ("tumor", "fat"), drawn)

    shares = object_shares(masks, Size(3, 2))

    np.testing.assert_allclose(shares, [[[1, 1, 1]] * 2, [[1, 0.5, 0]] * 2])


def test_a_lone_nucleus_is_seen_from_far(make_grid, make_masks):
    drawn = np.zeros((1, 1, 64, 64))
    drawn[0, 0, 20:26, 20:26] = 1
    masks = make_masks(make_grid([[0, 0]], 64, (1024, 1024)), ("lymphocyte",), drawn)

    painted = object_map(np.array([2.0]), object_shares(masks, Size(16, 16)))

    assert painted[0, 0] == pytest.approx(2.0 * 36 / 64**2)
    assert np.isnan(painted).sum() == 255


SHARES = np.array([[[1, 1, 0, 0.5]], [[0, 1, 0, 0]]], np.float32)


def test_values_add_up_where_objects_overlap():
    painted = object_map(np.array([2.0, -3.0]), SHARES)

    np.testing.assert_allclose(painted, [[2, -1, np.nan, 1]])


def test_or_the_strongest_alone_is_shown():
    painted = object_map(np.array([2.0, -3.0]), SHARES, overlap="max_abs")

    np.testing.assert_allclose(painted, [[2, -3, np.nan, 1]])


def test_a_density_sums_to_the_values(example):
    masks, _ = example
    shares, values = object_shares(masks, Size(37, 25)), np.array([2.0, -3.0])

    painted = object_map(values, shares, measure="density")

    assert np.nansum(painted) == pytest.approx(-1.0, abs=1e-5)
    np.testing.assert_allclose(
        np.nansum(object_map(values, SHARES, measure="density"), axis=0), [0.8, -2.2, 0, 0.4]
    )


def test_values_of_single_patches_are_painted_there(example):
    masks, drawn = example
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])

    painted = patch_object_map(values, masks, Size(96, 64))

    slide = level_zero(masks, drawn)
    where = patch_map(np.arange(3.0), masks.grid, Size(96, 64))
    for i in range(3):
        here, inside = painted[where == i], slide[:, where == i]
        wanted = values[i] @ inside
        np.testing.assert_allclose(here[inside.any(axis=0)], wanted[inside.any(axis=0)])
        assert np.isnan(here[~inside.any(axis=0)]).all()
    assert np.isnan(painted[np.isnan(where)]).all()


def test_one_value_for_all_patches_gives_the_map_of_the_object(example):
    masks, _ = example
    values, size = np.array([2.0, -3.0]), Size(24, 16)

    for overlap in ("sum", "max_abs"):
        np.testing.assert_allclose(
            patch_object_map(np.tile(values, (3, 1)), masks, size, overlap=overlap),
            object_map(values, object_shares(masks, size), overlap=overlap),
            atol=1e-6,
        )


def test_a_density_of_patches_sums_to_what_has_a_mask(example):
    masks, _ = example
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])  # the last has no mask

    painted = patch_object_map(values, masks, Size(10, 7), measure="density")

    assert np.nansum(painted) == pytest.approx(36.0)
