"""The pixels of patches, read ahead while the model works.

Axes: B patches of a batch, N patches of the grid, H W pixels.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.geometry import Size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.wsi.slide import Slide

__all__ = ["PatchBatch", "iter_patches", "read_patch"]

READERS = 2
AHEAD = 2
"""Batches in flight beyond the one in use: memory stays bounded on any slide."""


class PatchBatch(NamedTuple):
    """Some patches of a grid."""

    places: NDArray[np.int64]
    """``(B,)`` indices into the grid."""
    images: NDArray[np.uint8]
    """``(B, H, W, 3)`` RGB."""


def read_patch(slide: Slide, grid: PatchGrid, index: int) -> NDArray[np.uint8]:
    """Patch ``index`` of a grid, ``(H, W, 3)`` at the grid's resolution."""
    return slide.read(grid.box(index), Size(grid.pixels, grid.pixels))


def iter_patches(
    slide: Slide, grid: PatchGrid, *, batch: int, only: Sequence[int] | None = None
) -> Iterator[PatchBatch]:
    """Patches in order, batch by batch.

    Args:
        slide: Open slide.
        grid: Where to read.
        batch: Patches per batch; the last may be smaller.
        only: Places in the grid to read, in this order; by default all.

    Raises:
        SlideError: A patch cannot be read.
    """
    chosen = np.arange(len(grid)) if only is None else np.asarray(only, np.int64)
    batches = [chosen[start : start + batch] for start in range(0, len(chosen), batch)]

    def load(index: NDArray[np.int64]) -> PatchBatch:
        return PatchBatch(index, np.stack([read_patch(slide, grid, int(i)) for i in index]))

    with ThreadPoolExecutor(READERS) as pool:
        waiting = deque(pool.submit(load, index) for index in batches[: AHEAD + 1])
        upcoming = iter(batches[AHEAD + 1 :])
        try:
            while waiting:
                ready = waiting.popleft().result()
                waiting.extend(pool.submit(load, index) for index in _first(upcoming))
                yield ready
        finally:
            for future in waiting:
                future.cancel()


def _first(batches: Iterator[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """The next batch, if there is one."""
    found = next(batches, None)
    return [] if found is None else [found]
