"""Grids by hand. Positions are level-0 pixels."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from xpath.errors import ConfigError, EmptyTissueError, ResolutionError
from xpath.geometry import Box, Size
from xpath.wsi.grid import GridConfig, cut_grid
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import Tissue, find_tissue


def everywhere(slide):
    return Tissue(np.ones((1, 1), bool), (float(slide.size.width), float(slide.size.height)))


def test_from_the_file_to_the_grid(write_tiff, rng):
    """Tissue from (256, 256) to (768, 768) of a slide of 0.5 microns per pixel."""
    picture = np.full((1024, 1024, 3), 245, np.uint8)
    picture[256:768, 256:768] = rng.integers((150, 60, 160), (190, 100, 200), (512, 512, 3))

    with Slide.open(write_tiff(picture, mpp=0.5)) as slide:
        grid = cut_grid(slide, find_tissue(slide), GridConfig(patch_um=64.0, min_tissue=0.5))

    wanted = [[x, y] for y in range(256, 768, 128) for x in range(256, 768, 128)]
    assert grid.coords.tolist() == wanted
    assert (grid.footprint, grid.pixels) == (128, 128)


def test_rows_come_first_and_the_last_patches_reach_beyond_the_slide(fake_slide):
    """128 microns at 0.5 mpp are 256 pixels: three columns and two rows cover 700 by 300."""
    slide = fake_slide(700, 300)

    grid = cut_grid(slide, everywhere(slide), GridConfig(patch_um=128.0, mpp=0.5, min_tissue=0.1))

    assert grid.coords.tolist() == [[0, 0], [256, 0], [512, 0], [0, 256], [256, 256], [512, 256]]
    assert grid.coords.dtype == np.int64
    assert (grid.footprint, grid.pixels, grid.overlap) == (256, 256, 0)
    assert (grid.mpp, grid.slide_mpp, grid.slide_size) == (0.5, 0.5, Size(700, 300))


def test_outside_the_slide_counts_as_no_tissue(fake_slide):
    """The last column holds 188 of 256 pixels of slide (0.73), the last row 44 of 256 (0.17)."""
    slide = fake_slide(700, 300)

    grid = cut_grid(slide, everywhere(slide), GridConfig(min_tissue=0.5))

    assert grid.coords.tolist() == [[0, 0], [256, 0], [512, 0]]


@pytest.mark.parametrize(
    ("mpp", "footprint"), [(0.25, 512), (0.5, 256), (0.499, 257), (0.2527, 507), (1.0, 128)]
)
def test_a_patch_is_as_large_on_the_tissue_whatever_the_scanner(fake_slide, mpp, footprint):
    """128 / 0.2527 = 506.53: no scanner is rounded to 20x or 40x."""
    slide = fake_slide(2000, 2000, mpp=mpp)

    grid = cut_grid(slide, everywhere(slide), GridConfig(patch_um=128.0, mpp=0.5))

    assert (grid.footprint, grid.pixels) == (footprint, 256)


def test_rounding_does_not_add_up(fake_slide):
    """A step of 128 / 0.499 = 256.513: the 100th patch lies at 25651, not at 25700 or 25600."""
    slide = fake_slide(30_000, 300, mpp=0.499)

    grid = cut_grid(slide, everywhere(slide))

    step = 128 / 0.499
    assert grid.coords[:, 0].tolist() == [round(k * step) for k in range(len(grid))]
    assert grid.coords[100, 0] == 25651


def test_overlap_is_a_share_of_the_side(fake_slide):
    """Half of 256: a patch every 128 pixels. 5 of them end at 768, past the edge at 700."""
    slide = fake_slide(700, 256)

    grid = cut_grid(slide, everywhere(slide), GridConfig(overlap=0.5))

    assert grid.coords.tolist() == [[0, 0], [128, 0], [256, 0], [384, 0], [512, 0]]
    assert grid.overlap == 128


@pytest.mark.parametrize("overlap", [0.0, 0.1, 1 / 3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("width", [256, 768, 769, 1000])
def test_the_grid_covers_everything_and_nothing_twice_over(fake_slide, width, overlap):
    slide = fake_slide(width, 256)

    grid = cut_grid(slide, everywhere(slide), GridConfig(overlap=overlap, min_tissue=0))
    left = grid.coords[:, 0]

    assert left[-1] + 256 >= width
    assert len(grid) == 1 or left[-2] + 256 < width  # no more columns than needed
    assert np.abs(np.diff(left) - 256 * (1 - overlap)).max(initial=0) <= 1
    assert len(set(left)) == len(grid)


def test_only_patches_with_enough_tissue_are_kept(fake_slide):
    """Tissue from x = 300: the second patch holds 212 of 256 columns (0.83)."""
    slide = fake_slide(1024, 256)
    mask = np.zeros((256, 1024), bool)
    mask[:, 300:600] = True
    tissue = Tissue(mask, (1.0, 1.0))

    def columns(min_tissue):
        grid = cut_grid(slide, tissue, GridConfig(min_tissue=min_tissue))
        return grid.coords[:, 0].tolist()

    assert columns(0.0) == [0, 256, 512, 768]
    assert columns(0.3) == [256, 512]  # the third holds 88 of 256 (0.34)
    assert columns(0.5) == [256]
    assert columns(0.828125) == [256]  # 212 / 256 exactly
    with pytest.raises(EmptyTissueError, match=r"29\.3% .*90%.*best 83%.*lower min_tissue"):
        columns(0.9)


def test_full_patches_pass_a_demand_for_nothing_but_tissue(fake_slide):
    """Sums of a mask that does not fit whole pixels are a hair off: 0.9999999 is all."""
    slide = fake_slide(1003, 1003, mpp=0.499)
    tissue = Tissue(np.ones((63, 63), bool), (1003 / 63, 1003 / 63))

    grid = cut_grid(slide, tissue, GridConfig(min_tissue=1.0))

    assert len(grid) == 9


def test_the_grid_starts_at_the_scanned_part(fake_slide):
    """Some scanners store a stage of which only a part was scanned."""
    slide = fake_slide(10_000, 10_000, bounds=Box(1000, 2000, 512, 256))

    grid = cut_grid(slide, everywhere(slide))

    assert grid.coords.tolist() == [[1000, 2000], [1256, 2000]]


def test_no_tissue_is_refused_with_advice(fake_slide):
    slide = fake_slide(1024, 1024)
    tissue = Tissue(np.zeros((64, 64), bool), (16.0, 16.0))

    with pytest.raises(EmptyTissueError, match=r"fake\.svs: no tissue found.*blank.*min_satur"):
        cut_grid(slide, tissue)


def test_a_slide_without_colour_is_not_told_to_lower_a_threshold(fake_slide):
    tissue = Tissue(np.zeros((64, 64), bool), (16.0, 16.0), coloured=False)

    with pytest.raises(EmptyTissueError, match="without colour") as refused:
        cut_grid(fake_slide(1024, 1024), tissue)

    assert "min_saturation" not in str(refused.value)


def test_a_physical_grid_needs_a_resolution(fake_slide):
    slide = fake_slide(1024, 1024, mpp=None)

    with pytest.raises(ResolutionError, match="pass mpp="):
        cut_grid(slide, everywhere(slide))


def test_a_grid_in_pixels_does_without_and_says_so(fake_slide, caplog):
    slide = fake_slide(1024, 256, mpp=None)

    with caplog.at_level(logging.WARNING, "xpath"):
        grid = cut_grid(slide, everywhere(slide), GridConfig(patch_px=512, min_tissue=0.1))

    assert grid.coords.tolist() == [[0, 0], [512, 0]]
    assert (grid.footprint, grid.pixels, grid.mpp, grid.slide_mpp) == (512, 512, None, None)
    assert "no resolution known" in caplog.text


def test_a_grid_in_pixels_is_read_at_the_resolution_asked_for(fake_slide):
    slide = fake_slide(1024, 512, mpp=0.25)

    grid = cut_grid(slide, everywhere(slide), GridConfig(patch_px=512, mpp=0.5))

    assert (grid.footprint, grid.pixels, grid.mpp) == (512, 256, 0.5)
    assert grid.coords.tolist() == [[0, 0], [512, 0]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_um": 0},
        {"patch_um": float("nan")},
        {"mpp": float("inf")},
        {"patch_um": -1},
        {"mpp": 0},
        {"patch_px": -1},
        {"overlap": -0.1},
        {"overlap": 0.95},
        {"overlap": 64},  # pixels, where a share is wanted
        {"min_tissue": 1.1},
        {"min_tissue": -0.1},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        GridConfig(**wrong)


@pytest.mark.parametrize("slip", [{"patch_um": 0.128}, {"mpp": 500.0}])
def test_patches_below_a_pixel_are_refused(fake_slide, slip):
    slide = fake_slide(1024, 1024)

    with pytest.raises(ConfigError, match="microns"):
        cut_grid(slide, everywhere(slide), GridConfig(**slip))


def test_a_grid_nobody_can_want_is_refused_before_it_fills_the_memory(fake_slide):
    slide = fake_slide(100_000, 80_000)

    with pytest.raises(ConfigError, match=r"more than 20,000,000.*microns"):
        cut_grid(slide, everywhere(slide), GridConfig(patch_um=1.0))
