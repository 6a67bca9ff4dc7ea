"""Tissue on pictures whose tissue is known."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.errors import ConfigError
from xpath.geometry import Box
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import Tissue, TissueConfig, find_tissue, shares

GLASS, DARK, PALE = (243, 242, 244), (140, 70, 150), (228, 206, 224)
"""Saturation 2, 136 and 25 of 255."""

SIDE = 2560  # at 1 micron per pixel: 320 pixels of 8 microns


def painted(rng, *patches, glass=GLASS, noise=3):
    """Glass of 2560 by 2560 microns with rectangles (x, y, width, height, colour), microns."""
    overview = np.empty((SIDE // 8, SIDE // 8, 3), np.int16)
    overview[:] = glass
    for x, y, width, height, colour in patches:
        overview[y // 8 : (y + height) // 8, x // 8 : (x + width) // 8] = colour
    overview += rng.integers(-noise, noise + 1, overview.shape, dtype=np.int16)
    return overview.clip(0, 255).astype(np.uint8)


@pytest.fixture
def find(write_tiff):
    """Tissue of an overview that is written as a slide of 8 microns per pixel."""

    def run(overview, config=None, mpp=8.0):
        with Slide.open(write_tiff(overview, mpp=mpp)) as slide:
            return find_tissue(slide, config)

    return run


def area(tissue, x, y, width, height):
    """Share of a rectangle in microns."""
    return tissue.share(Box(x // 8, y // 8, width // 8, height // 8))


# Shares of boxes


def test_shares_by_hand():
    tissue = Tissue(np.array([[True, False], [True, True]]), (10.0, 20.0))

    assert tissue.share(Box(0, 0, 10, 20)) == 1
    assert tissue.share(Box(0, 0, 20, 40)) == 0.75
    assert tissue.share(Box(5, 0, 10, 20)) == 0.5  # half of one pixel, half of another
    assert tissue.share(Box(-10, 0, 20, 20)) == 0.5  # outside the slide there is none
    assert tissue.share(Box(10, 20, 20, 40)) == 0.25
    assert tissue.share(Box(100, 100, 5, 5)) == 0


def test_shares_equal_counting(rng):
    mask = rng.random((13, 17)) < 0.4
    fine = np.zeros((13 * 3 + 60, 17 * 4 + 60))  # a margin of 30 around the slide
    fine[30:-30, 30:-30] = np.kron(mask, np.ones((3, 4)))
    corners = rng.integers(-20, 60, (200, 2))
    sizes = rng.integers(1, 30, (200, 2))
    boxes = np.concatenate((corners, corners + sizes), axis=1)

    found = shares(Tissue(mask, (4.0, 3.0)), boxes.astype(float))

    wanted = [
        fine[top + 30 : bottom + 30, left + 30 : right + 30].mean()
        for left, top, right, bottom in boxes.clip(max=60).tolist()
    ]
    inside = (boxes[:, 2] <= 60) & (boxes[:, 3] <= 60)
    np.testing.assert_allclose(found[inside], np.array(wanted)[inside], atol=1e-12)
    assert inside.sum() > 50


# Finding it


def test_a_square_of_tissue_is_found_where_it_is(find, rng):
    tissue = find(painted(rng, (640, 800, 1280, 640, DARK)))

    assert tissue.mask.mean() == pytest.approx(1280 * 640 / SIDE**2, rel=0.02)
    assert area(tissue, 656, 816, 1248, 608) == 1
    assert area(tissue, 0, 0, SIDE, 784) == 0
    assert area(tissue, 0, 1456, SIDE, 1100) == 0


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (240, 236, 216), (200, 200, 200)])
@pytest.mark.parametrize("noise", [0, 3])
def test_blank_glass_has_no_tissue(find, rng, glass, noise):
    """Otsu's threshold always finds two classes. Here there is one."""
    assert not find(painted(rng, glass=glass, noise=noise)).mask.any()


def test_a_grey_slide_is_known_to_have_no_colour(find, rng):
    picture = painted(rng, (640, 800, 1280, 640, DARK))
    grey = np.repeat(picture[..., :1], 3, axis=2)

    assert find(picture).coloured
    assert not find(grey).coloured
    assert not find(grey).mask.any()


@pytest.mark.parametrize("pale", [PALE, (228, 212, 226), (240, 226, 239)])
@pytest.mark.parametrize("noise", [1, 3])
def test_pale_tissue_beside_dark_is_kept(find, rng, pale, noise):
    """Saturation 25, 18 and 15: Otsu's threshold falls between dark and pale tissue."""
    patches = [(240, 240, 960, 2000, DARK), (1440, 240, 800, 2000, pale)]
    tissue = find(painted(rng, *patches, noise=noise))

    assert area(tissue, 264, 264, 912, 1952) == 1
    assert area(tissue, 1464, 264, 752, 1952) > 0.99
    assert tissue.mask.mean() == pytest.approx((960 + 800) * 2000 / SIDE**2, rel=0.02)


def test_pale_tissue_is_found_whether_or_not_there_is_dark(find, rng):
    """Tissue in one place must not depend on what lies elsewhere on the slide."""
    pale, dark = (1440, 240, 800, 2000, (228, 213, 226)), (240, 240, 960, 2000, DARK)

    alone, beside = find(painted(rng, pale)), find(painted(rng, dark, pale))

    assert area(alone, 1464, 264, 752, 1952) > 0.99
    assert area(beside, 1464, 264, 752, 1952) > 0.99


def test_tinted_glass_beside_white_padding_is_not_tissue(find, rng):
    """Stitched scans fill what was not scanned with pure white, and scanned glass is yellowish."""
    overview = painted(rng, (800, 800, 800, 800, DARK), glass=(240, 236, 216))
    overview[:100] = 255

    tissue = find(overview)

    assert tissue.mask.mean() == pytest.approx(800 * 800 / SIDE**2, rel=0.03)


def test_a_slide_full_of_tissue_is_all_tissue(find, rng):
    """Between pink and purple Otsu would draw a line: there is no glass to compare with."""
    tissue = find(painted(rng, (0, 0, 1280, SIDE, DARK), glass=(226, 150, 190)))

    assert tissue.mask.all()


def test_black_frames_and_black_ink_are_not_tissue(find, rng):
    """Nearly black pixels have any saturation: (3, 0, 1) is as saturated as can be."""
    ink = (4, 3, 5)
    patches = [(0, 0, 2560, 320, ink), (0, 0, 400, 2560, ink), (1600, 1600, 480, 480, ink)]

    tissue = find(painted(rng, *patches, (800, 800, 640, 640, DARK)))

    assert area(tissue, 824, 824, 592, 592) == 1
    assert tissue.mask.mean() == pytest.approx(640 * 640 / SIDE**2, rel=0.1)
    assert not find(painted(rng, glass=ink)).mask.any()


@pytest.mark.parametrize("mpp", [4.0, 8.0])
def test_dust_and_pinholes_are_measured_in_microns(write_tiff, rng, mpp):
    """160 by 160 microns go, 240 by 240 stay, on whatever slide they are seen."""
    overview = painted(
        rng,
        (160, 160, 160, 160, DARK),  # dust
        (480, 160, 240, 240, DARK),  # a small piece
        (320, 960, 1920, 1280, DARK),
        (640, 1200, 160, 160, GLASS),  # a pinhole
        (1440, 1200, 320, 320, GLASS),  # a lumen
    )
    times = round(8 / mpp)
    picture = overview.repeat(times, axis=0).repeat(times, axis=1)

    with Slide.open(write_tiff(picture, mpp=mpp)) as slide:
        tissue = find_tissue(slide)

    assert tissue.mask.shape == (320, 320)
    assert tissue.downsample == pytest.approx((times, times))
    assert not tissue.mask[20:40, 20:40].any()
    assert tissue.mask[24:46, 64:86].all()
    assert tissue.mask[150:170, 80:100].all()
    assert not tissue.mask[156:184, 186:214].any()


def test_without_resolution_the_downsample_decides(find, rng):
    """32 level-0 pixels, as if the slide had 0.25 microns per pixel."""
    overview = painted(rng, (640, 800, 1280, 640, DARK)).repeat(8, axis=0).repeat(8, axis=1)

    without, given = find(overview, mpp=None), find(overview, mpp=0.25)

    assert without.mask.shape == (80, 80)  # 2560 / 32
    np.testing.assert_array_equal(without.mask, given.mask)
    assert without.mask.mean() == pytest.approx(1280 * 640 / SIDE**2, rel=0.05)


def test_the_overview_of_a_small_slide_keeps_some_pixels(find, rng):
    """320 level-0 pixels of 0.5 microns would be 20 pixels of 8 microns."""
    overview = painted(rng, (0, 0, SIDE, SIDE, DARK))

    tissue = find(overview, TissueConfig(min_area_um2=0), mpp=0.5)

    assert tissue.mask.shape == (64, 64)
    assert tissue.downsample == (5.0, 5.0)
    assert tissue.mask.all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mpp": 0},
        {"downsample": -1},
        {"min_saturation": 30},  # above max_saturation
        {"min_saturation": -1},
        {"close_um": -1},
        {"min_area_um2": -1},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        TissueConfig(**wrong)
