"""Windows against the paper's formula and its own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from xpath.errors import ConfigError
from xpath.pathseg.tiling import Window, overlap, starts, windows


@pytest.mark.parametrize(
    ("side", "wanted"),
    [
        (7215, (8192 - 7215) / 7),  # the largest image of the paper is 5412 x 7215
        (5412, (6144 - 5412) / 5),
        (3024, (3072 - 3024) / 2),  # CRAG, 1512 px at 20x
        (2000, 48.0),  # Janowczyk
        (2048, 0.0),
        (1024, 0.0),
        (700, 0.0),
    ],
)
def test_the_overlap_is_the_formula_of_the_paper(side, wanted):
    assert overlap(side) == pytest.approx(wanted, abs=1e-12)


def test_starts_of_the_paper_s_sides():
    assert starts(1500) == (0,)
    assert starts(1501) == (0, 477)
    assert starts(3024) == (0, 1000, 2000)
    assert starts(2048) == (0, 1024)
    # steps of 884.43: rounded each by itself, so errors do not add up
    assert starts(7215) == (0, 884, 1769, 2653, 3538, 4422, 5307, 6191)


@pytest.mark.parametrize("side", [*range(1501, 9000, 37), 2047, 2048, 2049, 3072, 3073, 8192])
def test_windows_cover_everything_and_stay_inside(side):
    found = starts(side)
    steps = np.diff(found)

    assert found[0] == 0
    assert found[-1] + 1024 == side
    assert steps.max() <= 1024  # no gap
    assert steps.max() - steps.min() <= 1  # even
    assert len(found) == -(-side // 1024)
    assert abs(1024 - steps.mean() - overlap(side)) < 1e-9


def test_each_side_is_looked_at_by_itself():
    assert windows(1400, 1600) == (
        Window(0, 0, 0, 0, 1400, 1024),
        Window(0, 1, 0, 576, 1400, 1024),
    )
    assert windows(200, 300) == (Window(0, 0, 0, 0, 200, 300),)


def test_windows_of_the_largest_image():
    found = windows(5412, 7215)
    seen = np.zeros((5412, 7215), np.uint8)
    for window in found:
        assert seen[window.slices].shape == (1024, 1024)
        seen[window.slices] += 1

    assert len(found) == 6 * 8
    assert seen.min() == 1
    assert [(w.row, w.column) for w in found[:9]] == [*((0, c) for c in range(8)), (1, 0)]


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="limit of 512 px is below the window"):
        starts(2000, limit=512)
    with pytest.raises(ConfigError, match="at least 1 px"):
        overlap(0)
