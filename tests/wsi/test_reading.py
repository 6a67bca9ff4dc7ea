import numpy as np
import pytest

from xpath.errors import EmptyTissueError, ResolutionError, SlideError
from xpath.geometry import Box, Size
from xpath.testing.slides import write_slide
from xpath.wsi.grid import GridConfig, cut_grid
from xpath.wsi.patches import iter_patches, read_patch
from xpath.wsi.resample import on_white
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import find_tissue


@pytest.fixture
def picture(rng):
    """White glass around a purple square from (256, 256) to (768, 768)."""
    image = np.full((1024, 1024, 3), 245, np.uint8)
    image[256:768, 256:768] = np.array([150, 60, 160]) + rng.integers(0, 40, (512, 512, 3))
    return image


@pytest.fixture
def slide(tmp_path, picture):
    write_slide(tmp_path / "square.tiff", picture, mpp=0.5, lossless=True)
    with Slide.open(tmp_path / "square.tiff") as slide:
        yield slide


def test_level_zero_comes_back_bit_by_bit(slide, picture):
    np.testing.assert_array_equal(slide.read(Box(100, 200, 300, 400)), picture[200:600, 100:400])
    assert slide.mpp == pytest.approx(0.5, rel=1e-3)


def test_outside_the_slide_is_white(slide, picture):
    found = slide.read(Box(-50, 1000, 100, 60))

    assert (found[:, :50] == 255).all()
    assert (found[24:] == 255).all()
    np.testing.assert_array_equal(found[:24, 50:], picture[1000:, :50])


def test_shrinking_averages(slide, picture):
    found = slide.read(Box(256, 256, 512, 512), Size(64, 64))

    wanted = picture[256:768, 256:768].reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.abs(found.astype(float) - wanted).max() < 3


def test_transparent_pixels_are_white():
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)

    assert on_white(pixels).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_the_grid_covers_the_tissue_and_only_it(slide):
    grid = cut_grid(slide, find_tissue(slide), GridConfig(patch_um=64.0, mpp=0.5, min_tissue=0.5))

    wanted = [[x, y] for y in range(256, 768, 128) for x in range(256, 768, 128)]
    assert grid.coords.tolist() == wanted
    assert (grid.footprint, grid.pixels) == (128, 128)


def test_patches_come_in_order_whatever_the_batch(slide):
    grid = cut_grid(slide, find_tissue(slide), GridConfig(patch_um=64.0, mpp=0.5))
    wanted = np.stack([read_patch(slide, grid, i) for i in range(len(grid))])

    for batch in (1, 3, 100):
        batches = list(iter_patches(slide, grid, batch=batch))
        np.testing.assert_array_equal(np.concatenate([images for _, images in batches]), wanted)
        assert np.concatenate([indices for indices, _ in batches]).tolist() == list(
            range(len(grid))
        )


def test_blank_glass_is_refused_with_advice(tmp_path, rng):
    blank = np.full((1024, 1024, 3), 240, np.uint8) + rng.integers(0, 4, (1024, 1024, 3), np.uint8)
    write_slide(tmp_path / "blank.tiff", blank, mpp=0.5)

    with (
        Slide.open(tmp_path / "blank.tiff") as slide,
        pytest.raises(EmptyTissueError, match="blank"),
    ):
        cut_grid(slide, find_tissue(slide))


def test_no_resolution_is_refused_with_the_way_out(tmp_path, picture):
    write_slide(tmp_path / "bare.tiff", picture, mpp=None)
    with Slide.open(tmp_path / "bare.tiff") as slide:
        assert slide.mpp_or_none is None
        with pytest.raises(ResolutionError, match="--mpp"):
            _ = slide.mpp
    with Slide.open(tmp_path / "bare.tiff", mpp=0.25) as slide:
        assert slide.mpp == 0.25


def test_what_is_no_slide_is_refused_by_name(tmp_path):
    (tmp_path / "text.svs").write_text("hello")
    for name in ("text.svs", "missing.svs", "."):
        with pytest.raises(SlideError):
            Slide.open(tmp_path / name)
