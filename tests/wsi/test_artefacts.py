"""Pen, bubbles and edges of glass beside tissue of many stains."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from xpath.testing.stain import Stain, compose, random_stain
from xpath.wsi.artefacts import find_pen, find_shadows, without_lines
from xpath.wsi.slide import Slide
from xpath.wsi.tissue import TissueConfig, find_tissue

PIXEL = 8.0
"""Microns."""
PENS = {
    "blue": (40, 70, 170),
    "ballpoint": (30, 35, 110),
    "light blue": (80, 140, 220),
    "green": (30, 140, 70),
    "dark green": (20, 80, 50),
    "turquoise": (0, 150, 160),
    "red": (210, 30, 40),
    "orange": (240, 120, 30),
    "yellow": (240, 225, 60),
    "black": (60, 58, 62),
    "grey black": (85, 85, 90),
}
TISSUES = {
    "purple": (140, 70, 150),
    "pink": (228, 160, 200),
    "pale": (228, 206, 224),
    "eosin": (220, 120, 170),
    "nuclei": (110, 80, 160),
    "blood": (190, 75, 95),
    "DAB": (150, 100, 60),
    "blue counterstain": (160, 165, 205),
}


def slide_like(rng, colour, *, noise=4):
    """Glass with a square of a colour in the middle and a stroke 15 pixels wide beside it."""
    picture = np.full((200, 300, 3), 243, np.int16)
    picture[60:140, 60:140] = colour
    picture += rng.integers(-noise, noise + 1, picture.shape, dtype=np.int16)
    return picture.clip(0, 255).astype(np.uint8)


def stroke(picture, colour):
    """A pen's stroke with soft edges, and where it is."""
    mask = np.zeros(picture.shape[:2], np.float32)
    cv2.line(mask, (200, 20), (260, 180), 1.0, 15)
    soft = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    drawn = picture * (1 - soft) + np.asarray(colour, np.float32) * soft
    return np.rint(drawn).astype(np.uint8), mask > 0


@pytest.mark.parametrize("pen", PENS)
def test_strokes_of_every_colour_are_found_with_their_rims(rng, pen):
    picture, where = stroke(slide_like(rng, TISSUES["purple"]), PENS[pen])

    found = find_pen(picture, PIXEL)

    assert found[where].all()
    assert not found[60:140, 60:140].any()


@pytest.mark.parametrize("tissue", TISSUES)
def test_no_stain_is_pen(rng, tissue):
    assert not find_pen(slide_like(rng, TISSUES[tissue], noise=15), PIXEL).any()


@pytest.mark.parametrize("seed", range(8))
def test_tissue_of_any_laboratory_is_neither_pen_nor_shadow(seed):
    rng = np.random.default_rng(seed)
    dense = np.broadcast_to(np.linspace(0.1, 1.6, 200, dtype=np.float32), (200, 200))
    stain = Stain() if seed == 0 else random_stain(rng)
    picture = compose(dense, dense.T, stain, rng)

    assert find_pen(picture, PIXEL).mean() < 0.001
    assert find_shadows(picture).mean() < 0.001


def test_shadows_are_grey(rng):
    picture = slide_like(rng, (170, 166, 172), noise=3)

    found = find_shadows(picture)

    assert found[60:140, 60:140].mean() > 0.99
    assert not found[:50].any()


def test_lines_go_and_what_hangs_on_tissue_stays():
    mask = np.zeros((100, 200), bool)
    mask[10:12] = True  # along the whole slide
    mask[40:80, 40:80] = True
    mask[60:62, 80:150] = True  # a strand

    kept = without_lines(mask, PIXEL)

    assert not kept[:20].any()
    np.testing.assert_array_equal(kept[20:], mask[20:])


@pytest.mark.parametrize("pen", ["blue", "green", "red"])
def test_pen_counts_as_tissue_unless_it_is_left_out(write_tiff, rng, pen):
    picture, where = stroke(slide_like(rng, TISSUES["purple"]), PENS[pen])

    with Slide.open(write_tiff(picture, mpp=PIXEL)) as slide:
        usual = find_tissue(slide).mask
        without = find_tissue(slide, TissueConfig(exclude_pen=True)).mask

    assert usual[where].all()
    assert not without[where].any()
    assert without[62:138, 62:138].all()
    assert without.mean() == pytest.approx(80 * 80 / (200 * 300), rel=0.05)


def test_edges_of_glass_count_as_tissue_unless_they_are_left_out(write_tiff, rng):
    """A line with the colours of a prism, and the grey rim of a bubble with a tint."""
    picture = slide_like(rng, TISSUES["purple"])
    picture[20:23] = (200, 150, 190)
    cv2.circle(picture, (230, 120), 40, (165, 150, 160), 8)

    with Slide.open(write_tiff(picture, mpp=PIXEL)) as slide:
        usual = find_tissue(slide).mask
        without = find_tissue(slide, TissueConfig(exclude_glass=True)).mask

    assert usual[21].mean() > 0.9
    assert usual[120, 188:193].any()
    assert without.mean() == pytest.approx(80 * 80 / (200 * 300), rel=0.05)
    assert without[62:138, 62:138].all()
