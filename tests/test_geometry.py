"""Boxes and grids, by hand."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.geometry import Box, PatchGrid, Size


def make_grid(coords, **changes):
    values = {
        "coords": np.asarray(coords, dtype=np.int64),
        "footprint": 512,
        "pixels": 256,
        "mpp": 0.5,
        "overlap": 0,
        "slide_size": Size(2000, 1000),
        "slide_mpp": 0.25,
    }
    return PatchGrid(**(values | changes))


def test_edges_of_a_box():
    box = Box(10, 20, 30, 40)

    assert (box.right, box.bottom) == (40, 60)
    assert box.size == Size(width=30, height=40)


def test_boxes_are_values():
    assert Box(1, 2, 3, 4) == Box(1, 2, 3, 4)
    assert len({Box(1, 2, 3, 4), Box(1, 2, 3, 4), Size(3, 4)}) == 2
    with pytest.raises(FrozenInstanceError):
        Box(1, 2, 3, 4).x = 5


def test_boxes_of_a_grid():
    grid = make_grid([[0, 100], [512, 612]])

    assert len(grid) == 2
    assert list(grid.boxes()) == [Box(0, 100, 512, 512), Box(512, 612, 512, 512)]
    assert grid.box(-1) == Box(512, 612, 512, 512)
    assert type(grid.box(0).x) is int  # numpy integers overflow and do not become JSON


def test_a_grid_may_be_empty():
    assert list(make_grid(np.zeros((0, 2))).boxes()) == []


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 1)])
def test_coordinates_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match=r"coords must be \(N, 2\)"):
        make_grid(np.zeros(shape))


@pytest.mark.parametrize("changes", [{"footprint": 0}, {"pixels": 0}, {"footprint": -512}])
def test_patches_without_size_are_refused(changes):
    with pytest.raises(DataError, match="positive"):
        make_grid([[0, 0]], **changes)


def test_grids_compare_by_identity():
    """Arrays do not compare to one truth value, so ``==`` on grids must not try."""
    assert make_grid([[0, 0]]) != make_grid([[0, 0]])
