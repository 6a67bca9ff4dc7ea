"""Real slides: pixels as OpenSlide gives them, tissue where a look at the picture says it is."""

from __future__ import annotations

import numpy as np
import openslide
import pytest

from xpath.errors import ResolutionError, SlideError
from xpath.geometry import Box, Size
from xpath.wsi.grid import GridConfig, cut_grid
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import find_tissue


@pytest.fixture(scope="session")
def slides(shared):
    return shared / "data" / "slides"


@pytest.fixture
def skin(slides):
    with Slide.open(slides / "cmu-1-small-region.svs") as slide:
        yield slide


def test_pixels_are_openslides_own(skin):
    box = Box(720, 1200, 500, 300)
    with openslide.OpenSlide(skin.path) as reference:
        wanted = np.asarray(reference.read_region((box.x, box.y), 0, (500, 300)).convert("RGB"))

    np.testing.assert_array_equal(skin.read(box), wanted)


def test_what_an_aperio_slide_says_of_itself(skin):
    assert skin.size == Size(2220, 2967)
    assert (skin.mpp, skin.objective) == (0.499, 20.0)
    assert skin.bounds == Box(0, 0, 2220, 2967)


def test_a_broken_slide_is_refused_by_name(slides):
    with pytest.raises(SlideError, match=r"broken\.svs is no slide"):
        Slide.open(slides / "broken.svs")


def test_a_slide_without_resolution_is_usable_once_it_is_given(slides):
    path = slides / "tcga-cr-7395-01a-01-ts1.svs"
    with Slide.open(path) as slide:
        tissue = find_tissue(slide)
        with pytest.raises(ResolutionError, match="--mpp"):
            cut_grid(slide, tissue)
        by_pixels = cut_grid(slide, tissue, GridConfig(patch_px=256))
    with Slide.open(path, mpp=0.5) as slide:
        grid = cut_grid(slide, find_tissue(slide))

    assert (by_pixels.mpp, by_pixels.slide_mpp, by_pixels.footprint) == (None, None, 256)
    assert (grid.mpp, grid.slide_mpp, grid.footprint) == (0.5, 0.5, 256)


@pytest.mark.parametrize(
    ("name", "mpp", "share", "tissue_at", "glass_at"),
    [
        (
            "cmu-1-small-region.svs",
            None,
            (0.33, 0.45),
            [(1000, 1100), (1200, 2700), (1000, 300)],  # epidermis, dermis, loose top
            [(200, 300), (1900, 1500), (200, 2000)],
        ),
        (
            "tcga-cr-7395-01a-01-ts1.svs",
            0.5,
            (0.58, 0.70),
            [(700, 1000), (2500, 700), (4000, 3200), (3300, 150)],
            [(100, 100), (700, 600), (4300, 1000), (300, 3400)],  # padding, grey glass
        ),
        (
            "colon_polyp_section1_half.tiff",
            None,
            (0.34, 0.46),
            [(1000, 1000), (4600, 1200), (6000, 1500), (1300, 10900), (3000, 9000)],  # 2, 3, 4 pale
            [(200, 4000), (6500, 12000), (3000, 500), (4500, 7300)],  # the last: a large lumen
        ),
    ],
)
def test_tissue_is_where_it_is_seen(slides, name, mpp, share, tissue_at, glass_at):
    with Slide.open(slides / name, mpp=mpp) as slide:
        tissue = find_tissue(slide)

    assert share[0] < tissue.mask.mean() < share[1]
    assert [tissue.share(Box(x, y, 64, 64)) > 0.5 for x, y in tissue_at] == [True] * len(tissue_at)
    assert [tissue.share(Box(x, y, 64, 64)) > 0.1 for x, y in glass_at] == [False] * len(glass_at)
