"""A slide that is an array, with masks that are arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xpath.geometry import Size
from xpath.testing.masks import grid_at


class Picture:
    """A slide of patches side by side."""

    path = Path("picture.tiff")

    def __init__(self, patches):
        self.patches = patches
        side = patches.shape[1]
        self.size = Size(side * len(patches), side)
        self.read_patches = []

    def read(self, box, size):
        assert size == box.size
        self.read_patches.append(box.x // box.width)
        return self.patches[box.x // box.width]


class Masks:
    """The members of ``SlideMasks``, over arrays."""

    def __init__(self, grid, labels, masks):
        self.grid, self.labels, self._masks = grid, tuple(labels), np.asarray(masks, bool)
        self.size = self._masks.shape[-1]
        self.area = self._masks.sum(axis=(2, 3), dtype=np.int64)

    def read(self, patches):
        return self._masks[patches]


def make_grid(coords, footprint, slide_size, *, pixels=None, mpp=0.5):
    return grid_at(
        coords, footprint, pixels=pixels or 0, slide_size=Size(*slide_size), slide_mpp=mpp, mpp=mpp
    )


@pytest.fixture(name="make_grid")
def make_grid_fixture():
    return make_grid


@pytest.fixture
def make_masks():
    return Masks


@pytest.fixture
def make_slide():
    """A slide of patches (N, H, W, 3) in a row, and its masks (N, L, H, W)."""

    def make(patches, labels, masks, *, mpp=0.5):
        side = patches.shape[1]
        coords = [[side * i, 0] for i in range(len(patches))]
        grid = make_grid(coords, side, (side * len(patches), side), mpp=mpp)
        return Picture(patches), Masks(grid, labels, masks)

    return make
