"""Masks of a whole slide as one picture: every pixel against a slow look-up."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.errors import ConfigError
from xpath.geometry import Size
from xpath.objects.canvas import Canvas, patch_canvas, strips, whole_canvas
from xpath.testing.masks import grid_at, write_masks

LABELS = ("breast-tissue-tumor", "breast-tissue-stroma")
SLIDE = Size(300, 250)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Patches of 80 level-0 pixels, 32 mask pixels; some overlap, one leaves the slide."""
    generator = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("canvas") / "masks.zarr"
    corners = [[10, 20], [90, 20], [130, 20], [10, 100], [230, 110], [90, 190]]
    grid = grid_at(corners, 80, pixels=32, slide_size=SLIDE, slide_mpp=None)
    masks = generator.random((6, 2, 32, 32)) < 0.3
    masks[2, 1] = False
    return write_masks(path, grid, masks, LABELS)


def whole(masks, canvas, labels=LABELS):
    """Strips are views that the next one overwrites, so each is copied."""
    pictures = [strip._replace(masks=strip.masks.copy()) for strip in strips(masks, labels, canvas)]
    tops = np.cumsum([0, *(strip.masks.shape[1] for strip in pictures)])
    assert [strip.top for strip in pictures] == tops[:-1].tolist()
    return np.concatenate([strip.masks for strip in pictures], axis=1)


def is_in(corners, patches, column, x, y):
    """Whether a point of level 0 lies on a mask pixel that is in, in any patch."""
    for (left, top), patch in zip(corners, patches, strict=True):
        row, place = int((y - top) * 32 // 80), int((x - left) * 32 // 80)
        if 0 <= row < 32 and 0 <= place < 32 and patch[column, row, place]:
            return True
    return False


@pytest.mark.parametrize(
    "canvas",
    [
        Canvas((10.0, 20.0), (2.5, 2.5), Size(116, 92)),
        Canvas((0.0, 0.0), (300 / 100, 250 / 84), Size(100, 84)),
    ],
)
def test_each_pixel_shows_the_mask_pixel_under_its_centre(masks, canvas):
    found, patches = whole(masks, canvas), masks.read(slice(None))

    assert found.shape == (2, canvas.size.height, canvas.size.width)
    generator = np.random.default_rng(2)
    for number, row, column in generator.integers(found.shape, size=(600, 3)):
        x = canvas.corner[0] + (column + 0.5) * canvas.scale[0]
        y = canvas.corner[1] + (row + 0.5) * canvas.scale[1]
        assert found[number, row, column] == is_in(masks.grid.coords, patches, number, x, y)


def test_labels_come_in_the_order_asked_for(masks):
    canvas = patch_canvas(masks)

    both = whole(masks, canvas)

    np.testing.assert_array_equal(whole(masks, canvas, LABELS[::-1]), both[::-1])
    np.testing.assert_array_equal(whole(masks, canvas, LABELS[1:]), both[1:])


def test_the_canvas_of_the_patches_ends_with_them_or_the_slide(masks):
    # from (10, 20) to the slide's end at (300, 250), 2.5 level-0 pixels each
    assert patch_canvas(masks) == Canvas((10.0, 20.0), (2.5, 2.5), Size(116, 92))


def test_what_no_patch_shows_is_not_covered(masks):
    canvas = Canvas((0.0, 0.0), (10.0, 10.0), Size(30, 25))
    covered = np.concatenate([strip.covered.copy() for strip in strips(masks, LABELS, canvas)])

    wanted = np.zeros((25, 30), np.bool_)
    for x, y in masks.grid.coords // 10:
        wanted[y : y + 8, x : x + 8] = True
    np.testing.assert_array_equal(covered, wanted)


def test_a_slide_too_large_is_halved_until_it_fits(masks):
    # 2.5 level-0 pixels: 120 x 100 of each label; 5: 60 x 50; 10: 30 x 25
    assert whole_canvas(masks, 24_000).size == Size(120, 100)
    assert whole_canvas(masks, 23_999).size == Size(60, 50)
    canvas = whole_canvas(masks, 2000)
    assert (canvas.size, canvas.shrink) == (Size(30, 25), 4)
    assert whole_canvas(masks, 1).shrink == 32  # a patch is one pixel, and no less


def test_shrinking_keeps_what_half_of_the_pixels_say(masks):
    canvas = Canvas((10.0, 20.0), (5.0, 5.0), Size(16, 16), shrink=2)

    found = whole(masks, canvas)[0]

    blocks = masks.read(0)[0].reshape(16, 2, 16, 2).sum(axis=(1, 3))
    np.testing.assert_array_equal(found, blocks >= 2)
    with pytest.raises(ConfigError, match="cannot be shrunk"):
        whole(masks, canvas._replace(shrink=3))
