"""Patches in order, ahead of time, and errors that arrive."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from xpath.errors import ConfigError, DataError, SlideError
from xpath.geometry import Size
from xpath.testing.masks import grid_at
from xpath.wsi import patches as module
from xpath.wsi.patches import iter_patches, read_patch
from xpath.wsi.slide import Slide


def make_grid(count, *, footprint=8, pixels=4):
    """A row of patches: patch ``i`` starts at x = 8 i."""
    corners = np.stack((np.arange(count) * 8, np.zeros(count)), axis=1)
    return grid_at(corners, footprint, pixels=pixels, slide_size=Size(8 * count, 8))


class Recorder:
    """A slide whose patch ``i`` is all ``i``, and which remembers what was read."""

    def __init__(self, *, bad=(), slow=0.0):
        self.bad, self.slow = bad, slow
        self.read_indices = []
        self.lock = threading.Lock()

    def read(self, box, size):
        index = box.x // 8
        with self.lock:
            self.read_indices.append(index)
        time.sleep(self.slow if index % 3 == 0 else 0)  # later patches are done first
        if index in self.bad:
            raise SlideError(f"damaged at {box}")
        return np.full((size.height, size.width, 3), index, np.uint8)


def indices_of(images):
    return images[:, 0, 0, 0].tolist()


def test_a_patch_is_what_lies_under_its_box(write_tiff, rng):
    picture = rng.integers(0, 256, (8, 40, 3), dtype=np.uint8)
    with Slide.open(write_tiff(picture)) as slide:
        found = read_patch(slide, make_grid(5, pixels=8), 2)
        small = read_patch(slide, make_grid(5, pixels=4), 2)

    np.testing.assert_array_equal(found, picture[:, 16:24])
    wanted = picture[:, 16:24].reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - wanted).max() <= 0.51


@pytest.mark.parametrize("batch", [1, 3, 7, 20, 100])
def test_order_is_that_of_the_grid_whichever_thread_is_faster(batch):
    slide = Recorder(slow=0.002)

    batches = list(iter_patches(slide, make_grid(20), batch=batch))

    assert [len(indices) for indices, _ in batches] == [
        min(batch, 20 - start) for start in range(0, 20, batch)
    ]
    assert np.concatenate([indices for indices, _ in batches]).tolist() == list(range(20))
    assert [index for _, images in batches for index in indices_of(images)] == list(range(20))
    assert sorted(slide.read_indices) == list(range(20))  # each once
    assert batches[0].images.shape == (min(batch, 20), 4, 4, 3)
    assert batches[0].images.dtype == np.uint8


def test_only_some_in_the_order_asked():
    slide = Recorder()

    batches = list(iter_patches(slide, make_grid(20), batch=2, only=[7, 3, 3, 19, 0]))

    assert [indices_of(images) for _, images in batches] == [[7, 3], [3, 19], [0]]
    assert [indices.tolist() for indices, _ in batches] == [[7, 3], [3, 19], [0]]
    assert set(slide.read_indices) == {0, 3, 7, 19}


@pytest.mark.parametrize("only", [[], (), np.array([], np.int64)])
def test_none_at_all(only):
    assert list(iter_patches(Recorder(), make_grid(5), batch=2, only=only)) == []
    assert list(iter_patches(Recorder(), make_grid(0), batch=2)) == []


@pytest.mark.parametrize(
    "only", [[20], [-1], [0, 500], [0.5], [True, False], np.ones((2, 2), int), np.ones(20, bool)]
)
def test_patches_the_grid_does_not_have_are_refused_at_once(only):
    """A mask of 20 truths would otherwise read patch 1 twenty times, and -1 the last one."""
    with pytest.raises(DataError, match="only="):
        iter_patches(Recorder(), make_grid(20), batch=4, only=only)


@pytest.mark.parametrize("batch", [0, -1])
def test_impossible_batches_are_refused_at_once(batch):
    with pytest.raises(ConfigError, match="batch"):
        iter_patches(Recorder(), make_grid(20), batch=batch)


def test_an_error_arrives_after_the_batches_before_it():
    slide = Recorder(bad={9})
    seen = []

    with pytest.raises(SlideError, match="x=72"):
        for indices, _ in iter_patches(slide, make_grid(1000), batch=4):
            seen += indices.tolist()

    assert seen == list(range(8))
    assert len(slide.read_indices) < 40  # the rest was not read in vain
    assert _readers() == []


def test_who_stops_early_stops_the_reading():
    slide = Recorder()
    batches = iter_patches(slide, make_grid(1000), batch=4)

    next(batches)
    batches.close()
    count = len(slide.read_indices)

    assert count <= 4 * (module.AHEAD + 2)
    assert _readers() == []
    assert list(batches) == []


def test_reading_goes_ahead_but_not_without_bound():
    slide = Recorder()
    batches = iter_patches(slide, make_grid(1000), batch=4)

    next(batches)
    deadline = time.monotonic() + 60
    ahead = 4 * (module.AHEAD + 2)  # the one handed out, and what is in flight
    while len(slide.read_indices) < ahead and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)

    assert sorted(slide.read_indices) == list(range(ahead))
    batches.close()


def _readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("xpath-read")]
