"""CLAM's coordinates: equal to CLAM's own on real slides, by hand on drawn ones."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from xpath.errors import ConfigError, EmptyTissueError, SlideError
from xpath.wsi.clam import CLAM_PRESETS, clam_grid, grid_from_preset
from xpath.wsi.clam_contours import ClamPreset, find_tissue_contours
from xpath.wsi.slide import Slide

PINK = (220, 120, 170)

EXACT = ClamPreset(sthresh=8, mthresh=1, close=0, a_t=0, a_h=0)
"""No filter and no closing: what is drawn is what is found."""


@pytest.fixture
def drawn(fake_slide):
    """A slide of white glass with pink rectangles (x, y, width, height), in its only level."""

    def draw(*rectangles, width=2048, height=2048, holes=(), downsamples=(1.0,)):
        slide = fake_slide(width, height, downsamples=downsamples)

        def read_level(index):
            size = slide.levels[index].size
            image = np.full((size.height, size.width, 3), 255, np.uint8)
            scale = width / size.width
            for colour, boxes in ((PINK, rectangles), (255, holes)):
                for box in boxes:
                    x, y, w, h = (round(value / scale) for value in box)
                    image[y : y + h, x : x + w] = colour
            return image

        slide.read_level = read_level
        return slide

    return draw


# CLAM's own numbers


@pytest.mark.parametrize("case", [0, 1])
def test_coordinates_equal_clams_order_included(shared, case):
    wanted = json.loads((shared / "golden" / "clam_coords.json").read_text())[case]
    with Slide.open(shared / "data" / "slides" / wanted["slide"]) as slide:
        grid = grid_from_preset(
            slide,
            f"clam:{wanted['preset']}",
            patch_size=wanted["patch_size"],
            step_size=wanted["step_size"],
            patch_level=wanted["patch_level"],
        )
        assert grid.slide_mpp == slide.mpp_or_none
        assert grid.slide_size == slide.size

    assert grid.coords.tolist() == wanted["coords"]
    assert (grid.footprint, grid.pixels, grid.overlap) == (256, 256, 0)
    assert grid.mpp == (None if "tcga" in wanted["slide"] else 0.499)


def test_there_are_no_more_golden_cases(shared):
    assert len(json.loads((shared / "golden" / "clam_coords.json").read_text())) == 2


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("default", (8, 7, 4, False, 100, 16, 8)),
        ("tcga", (8, 7, 4, False, 16, 4, 8)),
        ("bwh_biopsy", (15, 11, 2, False, 1, 1, 2)),
        ("bwh_resection", (15, 11, 4, False, 100, 16, 8)),
    ],
)
def test_presets_hold_clams_numbers(name, wanted):
    p = CLAM_PRESETS[name]

    assert (p.sthresh, p.mthresh, p.close, p.use_otsu, p.a_t, p.a_h, p.max_n_holes) == wanted
    assert (p.use_padding, p.contour_fn) == (True, "four_pt")
    assert set(CLAM_PRESETS) == {"default", "tcga", "bwh_biopsy", "bwh_resection"}


@pytest.mark.parametrize("name", ["clam:nobody", "nobody", "trident:tcga", "bwh_biopsy", "clam:"])
def test_an_unknown_preset_names_the_known(fake_slide, name):
    with pytest.raises(ConfigError, match=r"known are clam:default, .*clam:bwh_resection"):
        grid_from_preset(fake_slide(64, 64), name)


# By hand


def test_columns_come_first(drawn):
    """A rectangle from (100, 200), 600 by 400: starts 100, 356, 612 and 200, 456."""
    grid = clam_grid(drawn((100, 200, 600, 400)), EXACT)

    assert grid.coords.tolist() == [
        [100, 200], [100, 456], [356, 200], [356, 456], [612, 200], [612, 456],
    ]  # fmt: skip


def test_pieces_come_one_after_the_other(drawn):
    """OpenCV lists contours from the bottom up."""
    grid = clam_grid(drawn((100, 100, 400, 200), (1000, 1500, 200, 400)), EXACT)

    assert grid.coords.tolist() == [[1000, 1500], [1000, 1756], [100, 100], [356, 100]]


@pytest.mark.parametrize(
    ("contour_fn", "columns"),
    [
        ("four_pt", [0, 256, 512]),  # the left points of the third, at 576, are inside
        ("center", [0, 256]),  # 640 is not
        ("four_pt_hard", [0, 256]),
        ("basic", [0, 256, 512]),
    ],
)
def test_which_points_must_be_tissue(drawn, contour_fn, columns):
    """Tissue to x = 599, a patch high: four points lie 64 pixels around the centre."""
    grid = clam_grid(drawn((0, 0, 600, 256)), replace(EXACT, contour_fn=contour_fn))

    assert grid.coords[:, 0].tolist() == columns


def test_any_of_four_points_is_enough_and_the_border_counts(drawn):
    """The left points of a patch at 512 lie at 576: tissue to 577 holds them on its border."""
    assert len(clam_grid(drawn((0, 0, 577, 256)), EXACT)) == 3
    assert len(clam_grid(drawn((0, 0, 576, 256)), EXACT)) == 2
    hard = replace(EXACT, contour_fn="four_pt_hard")
    assert len(clam_grid(drawn((0, 0, 512 + 193, 256)), hard)) == 3
    assert len(clam_grid(drawn((0, 0, 512 + 192, 256)), hard)) == 2


def test_patches_centred_in_a_hole_are_dropped(drawn):
    """The hole from 300 to 700 holds the centre 384 and 640, not 128 and 896."""
    slide = drawn((0, 0, 1024, 256), holes=[(300, 60, 400, 150)])

    assert clam_grid(slide, EXACT).coords[:, 0].tolist() == [0, 768]


def test_many_contours_take_time_in_proportion(drawn):
    """Asking every contour for every contour would take minutes."""
    dots = [(x, y, 4, 4) for y in range(256, 2048, 8) for x in range(0, 2048, 8)]
    rings = [(x, 16, 64, 64) for x in range(16, 2000, 128)]
    holes = [(x + 8, 24, 8 + 2 * i, 8) for i, (x, *_) in enumerate(rings)]
    slide = drawn(*dots, *rings, holes=holes)

    start = time.process_time()
    contours = find_tissue_contours(slide, EXACT)

    assert time.process_time() - start < 30
    assert len(contours) == len(dots) + len(rings)
    widths = {}
    for contour, inside in contours:
        for hole in inside:
            widths[contour[..., 0].min()] = np.ptp(hole[..., 0])
    assert widths == {x: 9 + 2 * i for i, (x, *_) in enumerate(rings)}  # each has its own


def test_only_the_largest_holes_count(drawn):
    """Sides in units of 512 pixels: holes of 1.5, 2.25 and 4 units, kept above ``a_h``."""
    holes = [(100, 100, 768, 512), (1100, 100, 768, 768), (2100, 100, 1024, 1024)]
    slide = drawn((0, 0, 4000, 2000), width=4096, height=4096, holes=holes)

    def kept(**changes):
        (tissue,) = find_tissue_contours(slide, replace(EXACT, **changes))
        return [int(hole[..., 0].min()) // 1000 for hole in tissue.holes]

    assert kept() == [2, 1, 0]
    assert kept(max_n_holes=2) == [2, 1]
    assert kept(a_h=2) == [2, 1]
    assert kept(a_h=3) == [2]
    assert kept(max_n_holes=0) == []


def test_small_pieces_are_dropped_their_holes_not_counted(drawn):
    """1030 by 1030 are 4 units of tissue, less a hole of 1.5."""
    slide = drawn((0, 0, 1030, 1030))
    holed = drawn((0, 0, 1030, 1030), holes=[(100, 100, 768, 512)])

    assert len(find_tissue_contours(slide, replace(EXACT, a_t=4))) == 1
    assert len(find_tissue_contours(slide, replace(EXACT, a_t=5))) == 0
    assert len(find_tissue_contours(holed, replace(EXACT, a_t=2))) == 1
    assert len(find_tissue_contours(holed, replace(EXACT, a_t=3))) == 0


def test_padding(drawn):
    """600 pixels of tissue on a slide of 600: without padding the third patch would stick out."""
    slide = drawn((0, 0, 600, 600), width=600, height=600)

    with_padding = clam_grid(slide, EXACT).coords
    without = clam_grid(slide, replace(EXACT, use_padding=False)).coords

    assert with_padding.max(axis=0).tolist() == [512, 512]
    assert without.tolist() == [[0, 0], [0, 256], [256, 0], [256, 256]]


def test_a_patch_that_just_fits_needs_no_padding(drawn):
    slide = drawn((0, 0, 512, 512), width=512, height=512)

    assert len(clam_grid(slide, replace(EXACT, use_padding=False))) == 4


def test_step_and_overlap(drawn):
    grid = clam_grid(drawn((0, 0, 512, 200)), EXACT, patch_size=256, step_size=128)

    assert grid.coords[:, 0].tolist() == [0, 0, 128, 128, 256, 256, 384, 384]
    assert grid.overlap == 128
    assert clam_grid(drawn((0, 0, 512, 200)), EXACT, step_size=512).overlap == 0


def test_patches_of_a_coarser_level(drawn):
    """A level of 2.004: CLAM steps 256 * 2 at level 0, and reads 256 * 2.004 = 513 from there."""
    slide = drawn((0, 0, 1100, 200), width=2004, height=2004, downsamples=(1.0, 2.004))

    grid = clam_grid(slide, EXACT, patch_level=1)

    assert grid.coords[:, 0].tolist() == [0, 512]  # 1024 + 128 is past the tissue
    assert (grid.footprint, grid.pixels, grid.overlap) == (513, 256, 1)
    assert grid.mpp == pytest.approx(0.5 * 2.004)
    assert grid.slide_mpp == 0.5


@pytest.mark.parametrize(
    ("downsamples", "level"),
    [
        ((1.0,), 0),
        ((1.0, 4.0, 16.0), 2),
        ((1.0, 4.0, 64.0), 2),
        ((1.0, 4.0, 64.01), 1),  # OpenSlide knows no tolerance
        ((1.0, 128.0), 0),
    ],
)
def test_the_level_that_is_segmented(drawn, downsamples, level):
    slide = drawn((0, 0, 4000, 4000), width=8192, height=8192, downsamples=downsamples)
    read, found = slide.read_level, []
    slide.read_level = lambda index: (found.append(index), read(index))[1]

    find_tissue_contours(slide, EXACT)

    assert found == [level]


def test_contours_are_scaled_to_level_zero_and_truncated(drawn):
    """Pixel 10 of a level of 2048 / 30 = 68.27 lies at 682.67."""
    slide = drawn((683, 683, 700, 700), downsamples=(1.0, 30.0))

    ((contour, _),) = find_tissue_contours(slide, EXACT)

    scale = 2048 / 68
    assert contour[..., 0].min() == int(round(683 / scale) * scale)
    assert contour.dtype == np.int32


def test_otsu_instead_of_a_threshold(drawn):
    """A fixed threshold of 200 finds nothing, Otsu's finds the pink."""
    slide = drawn((0, 0, 512, 512))

    assert find_tissue_contours(slide, replace(EXACT, sthresh=200)) == []
    assert len(find_tissue_contours(slide, replace(EXACT, sthresh=200, use_otsu=True))) == 1


def test_closing_joins_and_the_median_removes(drawn):
    apart = drawn((0, 0, 100, 100), (103, 0, 100, 100), (500, 500, 2, 2))

    assert len(find_tissue_contours(apart, EXACT)) == 3
    assert len(find_tissue_contours(apart, replace(EXACT, close=4))) == 2
    assert len(find_tissue_contours(apart, replace(EXACT, close=4, mthresh=7))) == 1


def test_no_patch_is_refused_with_advice(drawn):
    with pytest.raises(EmptyTissueError, match=r"fake\.svs.*no patch.*another preset"):
        clam_grid(drawn(), "default")


def test_a_level_too_large_for_clam_is_refused(drawn):
    with pytest.raises(SlideError, match=r"gives up above 100,000,000.*without preset"):
        clam_grid(drawn(width=20_000, height=10_000))


@pytest.mark.parametrize(
    "wrong", [{"patch_size": 0}, {"step_size": 0}, {"patch_level": 1}, {"patch_level": -1}]
)
def test_sizes_that_cannot_be_are_refused(drawn, wrong):
    with pytest.raises(ConfigError):
        clam_grid(drawn((0, 0, 512, 512)), EXACT, **wrong)


@pytest.mark.parametrize("wrong", [{"mthresh": 6}, {"mthresh": -1}, {"contour_fn": "three_pt"}])
def test_impossible_presets_are_refused(wrong):
    with pytest.raises(ConfigError):
        ClamPreset(**wrong)
