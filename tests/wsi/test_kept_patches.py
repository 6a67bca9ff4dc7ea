"""A patch that is cut out of what was decoded for its window is the patch that would be read."""

import errno
import os

import numpy as np
import pytest

from xpath.geometry import Box, PatchGrid, Size
from xpath.segment.predict.blending import widened
from xpath.testing.slides import write_slide
from xpath.wsi.kept_patches import KeptPatches
from xpath.wsi.patches import iter_patches
from xpath.wsi.slide import Slide


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "noise.tiff"
    rng = np.random.default_rng(0)
    write_slide(path, rng.integers(0, 256, (700, 900, 3), dtype=np.uint8), mpp=0.25)
    return path


@pytest.fixture
def regions(monkeypatch):
    """What is read of the levels, as they are stored."""
    read, region = [], Slide._region

    def spy(slide, index, columns, rows):
        read.append((index, columns, rows))
        return region(slide, index, columns, rows)

    monkeypatch.setattr(Slide, "_region", spy)
    return read


def grid_of(slide, footprint, pixels):
    corners = [(x, y) for y in range(-7, 700, footprint) for x in range(-7, 900, footprint)]
    return PatchGrid(
        coords=np.array(corners),
        footprint=footprint,
        pixels=pixels,
        mpp=0.5,
        overlap=0,
        slide_size=slide.size,
        slide_mpp=0.25,
    )


@pytest.mark.parametrize("side", [(128, 128), (128, 64), (127, 64), (129, 32), (100, 128)])
@pytest.mark.parametrize("overlap", [0, 8, 32])
def test_pixels_are_those_of_a_second_reading(tmp_path, path, regions, side, overlap):
    with Slide.open(path) as slide, KeptPatches(tmp_path) as kept:
        grid = grid_of(slide, *side)
        windows = widened(grid, overlap) if overlap else grid
        expected = np.stack([slide.read(box, Size(side[1], side[1])) for box in grid.boxes()])
        around = [batch.images for batch in iter_patches(slide, windows, batch=4)]
        regions.clear()
        source = kept.start(slide, grid)
        given = [batch.images for batch in iter_patches(source, windows, batch=4)]
        again = [batch.images for batch in iter_patches(source, grid, batch=3)]

        assert kept.complete
        np.testing.assert_array_equal(np.concatenate(given), np.concatenate(around))
        np.testing.assert_array_equal(np.concatenate(again), expected)
        assert len(regions) == len(set(regions)) == len(grid)
    assert not list(tmp_path.iterdir())


def test_other_boxes_are_read_from_the_slide(tmp_path, path):
    box, size = Box(5, 5, 50, 60), Size(25, 30)
    with Slide.open(path) as slide, KeptPatches(tmp_path) as kept:
        kept.start(slide, grid_of(slide, 128, 64))
        np.testing.assert_array_equal(kept.read(box, size), slide.read(box, size))
        assert not kept.complete


def test_a_full_disk_keeps_nothing(tmp_path, path, monkeypatch):
    with Slide.open(path) as slide, KeptPatches(tmp_path) as kept:
        grid = grid_of(slide, 128, 64)
        windows = widened(grid, 8)
        kept.start(slide, grid)

        class Full:
            seek = flush = lambda *_: None

            def write(self, _):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(kept, "_started", kept._started._replace(file=Full()))
        for source in (windows, grid):
            for index, images in iter_patches(kept, source, batch=4):
                side = Size(source.pixels, source.pixels)
                np.testing.assert_array_equal(images[0], slide.read(source.box(index[0]), side))
        assert not kept.complete
