"""Reads show the box they are asked for, measured on pictures whose colours are coordinates."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from xpath.geometry import Box, Size
from xpath.wsi.pyramid import Scale, scale_of
from xpath.wsi.slide import Slide

FULL = Size(2003, 1501)
"""No power of two divides it."""
PERIOD, SLOPE = 120, 4
"""A wave up and down: this many level-0 pixels long, so many grey values a pixel."""
READS = 40


def wave(x):
    """Grey value at a coordinate in level-0 pixels."""
    return 5 + SLOPE * np.abs((x / PERIOD) % 1 - 0.5) * PERIOD


def coordinates():
    """Red is a wave across, green a wave down."""
    picture = np.zeros((FULL.height, FULL.width, 3))
    picture[..., 0] = wave(np.arange(FULL.width) + 0.5)
    picture[..., 1] = wave(np.arange(FULL.height) + 0.5)[:, None]
    return np.rint(picture).astype(np.uint8)


def cut_off(picture, factor):
    """As scanners make levels: what does not fill a block is left out."""
    height, width = (side // factor for side in picture.shape[:2])
    blocks = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def filled_up(picture, factor):
    """As others do: the last block is filled with its border."""
    rest = [(0, -side % factor) for side in picture.shape[:2]]
    return cut_off(np.pad(picture, [*rest, (0, 0)], mode="edge"), factor)


def stretched(picture, width, height):
    """A picture of the whole, whatever its size."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


PYRAMIDS = {
    "exact": lambda full: [cut_off(full[:1472, :1984], factor) for factor in (1, 2, 4, 8, 16)],
    "cut off": lambda full: [full, *(cut_off(full, factor) for factor in (2, 4, 8, 16))],
    "strip": lambda full: [full[:243], *(cut_off(full[:243], factor) for factor in (4, 16))],
    "filled up": lambda full: [full, *(filled_up(full, factor) for factor in (2, 4, 16))],
    "thirds": lambda full: [full, *(cut_off(full, factor) for factor in (3, 9))],
    "uneven": lambda full: [full, stretched(full, 607, 455), stretched(full, 250, 160)],
    "axes apart": lambda full: [full, stretched(full, 1001, 400)],
}


@pytest.mark.parametrize("reader", ["openslide", "tiff"])
@pytest.mark.parametrize("pyramid", PYRAMIDS)
def test_every_level_shows_the_box_to_half_a_pixel(write_tiff, pyramid, reader, rng, monkeypatch):
    """At any corner, also left of and above the slide, and up to its far border."""
    if reader == "openslide":
        monkeypatch.setattr("xpath.wsi.slide.faster", lambda reader: reader)
    levels = PYRAMIDS[pyramid](coordinates())

    with Slide.open(write_tiff(*levels)) as slide:
        for index, scale in enumerate(slide.scales):
            stored = slide.levels[index].size
            ends = stored.width * scale.x, stored.height * scale.y
            for _ in range(READS):
                size = Size(*rng.integers(12, 70, 2).tolist())
                zoom = rng.uniform(1, 1.4)
                width = round(zoom * size.width * scale.x)
                height = round(zoom * size.height * scale.y)
                x = int(rng.integers(-width // 2, max(1, ends[0] - width // 2)))
                y = int(rng.integers(-height // 2, max(1, ends[1] - height // 2)))
                box = Box(x, y, width, height)
                found = _read(slide, index, box, size)
                across, down = _profiles(found, box, ends)
                assert _off(across, x, width, ends[0], scale.x) <= 0.5, (index, box, size)
                assert _off(down, y, height, ends[1], scale.y) <= 0.5, (index, box, size)


def _read(slide, index, box, size):
    """Pixels from one level, whichever would be chosen."""
    slide.best_level = lambda _: index
    return slide.read(box, size).astype(float)


def _profiles(found, box, ends):
    """Mean grey values along both axes, of what lies on the slide."""
    rows = _inside(found.shape[0], box.y, box.height, ends[1])
    columns = _inside(found.shape[1], box.x, box.width, ends[0])
    return found[rows][..., 0].mean(axis=0), found[:, columns][..., 1].mean(axis=1)


def _inside(count, start, length, end):
    edges = start + np.arange(count + 1) * length / count
    return (edges[:-1] >= 0) & (edges[1:] <= end)


def _off(profile, start, length, end, scale):
    """Level-0 pixels by which grey values are off the wave, at worst.

    An average over a turn of the wave is no coordinate, nor is one with white: pixels that reach to
    within a pixel of the level of either are not looked at.
    """
    step = length / len(profile)
    centres = start + (np.arange(len(profile)) + 0.5) * step
    phase, turn = (centres / PERIOD) % 0.5, (step + 2 * scale) / PERIOD
    straight = (phase > turn) & (phase < 0.5 - turn)
    used = straight & _inside(len(profile), start, length, end - scale)
    return np.abs(profile - wave(centres))[used].max(initial=0) / SLOPE


def test_where_a_level_was_cut_short_its_last_pixel_is_continued(write_tiff):
    """And white begins where the slide ends: 7 of 16 level-0 pixels under the last one."""
    picture = np.full((160, 167, 3), 100, np.uint8)

    with Slide.open(write_tiff(picture, cut_off(picture, 16))) as slide:
        assert slide.scales[1] == (16, 16)
        found = slide.read(Box(0, 0, 208, 160), Size(13, 10))

    wanted = [100] * 10 + [round(100 * 7 / 16 + 255 * 9 / 16)] + [255] * 2
    assert found[5, :, 0].tolist() == wanted


@pytest.mark.parametrize(
    ("level", "scale"),
    [
        ((5000, 3750), (4, 4)),  # cut off: 20003 = 4 * 5000 + 3
        ((5001, 3751), (4, 4)),  # filled up
        ((1250, 937), (16, 16)),
        ((6667, 5001), (3, 3)),
        ((6668, 5001), (20003 / 6668, 15003 / 5001)),  # neither: a picture of the whole
        ((5000, 7501), (20003 / 5000, 15003 / 7501)),
        ((20003, 15003), (1, 1)),
    ],
)
def test_scales_are_whole_where_sizes_allow(level, scale):
    assert scale_of(Size(*level), Size(20003, 15003)) == pytest.approx(Scale(*scale), abs=1e-12)
