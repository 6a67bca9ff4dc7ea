"""Slides on disk, as OpenSlide sees them."""

from __future__ import annotations

import numpy as np
import openslide
import pytest

from xpath.errors import ConfigError, ShapeError
from xpath.geometry import Box
from xpath.testing.slides import write_slide
from xpath.wsi.slide import Slide


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (320, 512, 3), dtype=np.uint8)


def level(path, number):
    with openslide.OpenSlide(path) as slide:
        size = slide.level_dimensions[number]
        return np.asarray(slide.read_region((0, 0), number, size))[..., :3]


def test_openslide_opens_it(tmp_path, image):
    path = tmp_path / "slide.tiff"
    write_slide(path, image, mpp=0.2527)

    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.2527, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.2527, rel=1e-6)
        assert slide.level_dimensions == ((512, 320), (256, 160), (128, 80))
        assert slide.level_downsamples == (1.0, 2.0, 4.0)


@pytest.mark.parametrize("shape", [(320, 512), (257, 301), (90, 70)])
def test_lossless_pixels_come_back(tmp_path, rng, shape):
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    write_slide(tmp_path / "slide.tiff", image, mpp=0.5, lossless=True)

    np.testing.assert_array_equal(level(tmp_path / "slide.tiff", 0), image)


def test_a_level_is_the_mean_of_four_pixels(tmp_path, image):
    write_slide(tmp_path / "slide.tiff", image, mpp=0.5, lossless=True)

    means = image.reshape(160, 2, 256, 2, 3).mean(axis=(1, 3))
    assert np.abs(level(tmp_path / "slide.tiff", 1) - means).max() <= 0.5


def test_jpeg_is_close_on_tissue(tmp_path, rich):
    write_slide(tmp_path / "slide.tiff", rich.image, mpp=0.5)

    off = np.abs(level(tmp_path / "slide.tiff", 0).astype(int) - rich.image)
    assert 0 < off.mean() < 6


def test_no_resolution(tmp_path, image):
    write_slide(tmp_path / "slide.tiff", image, mpp=None)

    with openslide.OpenSlide(tmp_path / "slide.tiff") as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_our_own_reader_agrees(tmp_path, image):
    write_slide(tmp_path / "slide.tiff", image, mpp=0.5, levels=2, lossless=True)

    with Slide.open(tmp_path / "slide.tiff") as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert len(slide.levels) == 2
        np.testing.assert_array_equal(slide.read(Box(100, 50, 64, 32)), image[50:82, 100:164])


def test_same_image_same_bytes(tmp_path, image):
    write_slide(tmp_path / "one.tiff", image, mpp=0.5)
    write_slide(tmp_path / "two.tiff", image, mpp=0.5)

    assert (tmp_path / "one.tiff").read_bytes() == (tmp_path / "two.tiff").read_bytes()


@pytest.mark.parametrize("wrong", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_other_images_are_refused(tmp_path, wrong):
    with pytest.raises(ShapeError, match="uint8"):
        write_slide(tmp_path / "slide.tiff", wrong, mpp=0.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"mpp": 0.0}, {"mpp": float("nan")}, {"mpp": 1, "levels": 0}])
def test_settings_that_cannot_be_are_refused(tmp_path, image, wrong):
    with pytest.raises(ConfigError, match=r"mpp|level"):
        write_slide(tmp_path / "slide.tiff", image, **wrong)
    assert not list(tmp_path.iterdir())
