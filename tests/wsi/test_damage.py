"""Damaged tiles: never silently white, and never the end of the slide."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from xpath.errors import SlideError
from xpath.geometry import Box, Size
from xpath.wsi.slide import Slide

GOOD, BAD = Box(10, 10, 60, 60), Box(150, 20, 60, 60)


@pytest.fixture
def damaged(write_tiff, rng):
    """A slide whose second tile is zeros where a JPEG should be."""
    path = write_tiff(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), compression="jpeg")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    return path


def test_a_damaged_part_is_named(damaged):
    with (
        Slide.open(damaged) as slide,
        pytest.raises(SlideError, match=r"slide\.tiff.*Box\(x=150, y=20.*level 0\): Not a JPEG"),
    ):
        slide.read(BAD)


def test_the_rest_of_the_slide_stays_readable(damaged):
    """OpenSlide itself refuses every later read of a handle that has met damage."""
    with Slide.open(damaged) as slide:
        wanted = slide.read(GOOD)
        for _ in range(3):
            with pytest.raises(SlideError):
                slide.read(BAD, Size(8, 8))
            np.testing.assert_array_equal(slide.read(GOOD), wanted)


def test_a_thumbnail_of_a_damaged_slide_fails_too(damaged):
    with Slide.open(damaged) as slide, pytest.raises(SlideError, match="damaged"):
        slide.thumbnail(32)


def test_damage_met_by_one_thread_is_not_blamed_on_another(damaged):
    def attempt(box):
        try:
            return slide.read(box)
        except SlideError:
            return None

    with Slide.open(damaged) as slide, ThreadPoolExecutor(4) as pool:
        wanted = slide.read(GOOD)
        found = list(pool.map(attempt, [GOOD, BAD, GOOD, GOOD] * 40))

    for index, pixels in enumerate(found):
        if index % 4 == 1:
            assert pixels is None
        else:
            np.testing.assert_array_equal(pixels, wanted)


def test_a_file_that_vanished_after_damage_is_reported(damaged):
    with Slide.open(damaged) as slide:
        damaged.unlink()
        with pytest.raises(SlideError, match="does not exist"):
            slide.read(BAD)
