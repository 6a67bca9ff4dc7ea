"""The pixels of patches, read ahead while the model works.

Axes: B patches of a batch, N patches of the grid, H W pixels.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.geometry import Size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import Box, PatchGrid

__all__ = ["PatchBatch", "PatchSource", "iter_patches", "read_patch"]

READERS = 4
"""Threads that read. Decoding happens outside Python's lock."""
AHEAD = 2
"""Batches in flight beyond the one in use: memory stays bounded on any slide."""


class PatchSource(Protocol):
    """Where pixels come from: a ``Slide``, or the ``KeptPatches`` of one."""

    @property
    def path(self) -> Path:
        """File of the slide."""

    @property
    def size(self) -> Size:
        """Size of the slide at level 0 in pixels."""

    def read(self, box: Box, size: Size) -> NDArray[np.uint8]:
        """As of ``Slide.read``, also by several threads."""


class PatchBatch(NamedTuple):
    """Some patches of a grid."""

    indices: NDArray[np.int64]
    """``(B,)`` positions in the grid."""
    images: NDArray[np.uint8]
    """``(B, H, W, 3)`` RGB."""


def read_patch(slide: PatchSource, grid: PatchGrid, index: int) -> NDArray[np.uint8]:
    """Patch ``index`` of a grid, ``(H, W, 3)`` at the grid's resolution."""
    return slide.read(grid.box(index), Size(grid.pixels, grid.pixels))


def iter_patches(
    slide: PatchSource, grid: PatchGrid, *, batch: int, only: Sequence[int] | None = None
) -> Iterator[PatchBatch]:
    """Patches in order, batch by batch, read ahead by a few threads.

    Whoever stops early should close the iterator (or let it go): reading ahead then stops.

    Args:
        slide: Open slide; stays open until the last batch has come.
        grid: Where to read.
        batch: Patches per batch; the last may be smaller.
        only: Indices into the grid to read, in this order; by default all.

    Raises:
        ConfigError: ``batch`` is not positive.
        DataError: ``only`` names patches the grid does not have.
        SlideError: A patch cannot be read; the batches before it have come.
    """
    if batch < 1:
        raise ConfigError(f"batch must be positive, got {batch}")
    return _batches(slide, grid, batch, _chosen(only, len(grid)))


def _chosen(only: Sequence[int] | None, count: int) -> NDArray[np.int64]:
    if only is None:
        return np.arange(count)
    chosen = np.asarray(only)
    if chosen.size and (chosen.dtype.kind not in "iu" or chosen.ndim != 1):
        raise DataError(f"only= must list indices into the grid, got {chosen.dtype} {chosen.shape}")
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < count:
        raise DataError(
            f"only= names patches {chosen.min()} to {chosen.max()}, the grid has 0 to {count - 1}"
        )
    return chosen.astype(np.int64)


def _batches(
    slide: PatchSource, grid: PatchGrid, batch: int, chosen: NDArray[np.int64]
) -> Iterator[PatchBatch]:
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="xpath-read")
    waiting: deque[_Waiting] = deque()
    starts = iter(range(0, len(chosen), batch))

    def submit(batches: int) -> None:
        for start in islice(starts, batches):
            index = chosen[start : start + batch]
            patches = [pool.submit(read_patch, slide, grid, int(i)) for i in index]
            waiting.append(_Waiting(index, patches))

    try:
        submit(AHEAD + 1)
        while waiting:
            index, patches = waiting.popleft()
            images = np.stack([patch.result() for patch in patches])
            submit(1)
            yield PatchBatch(index, images)
    finally:  # also when a patch is damaged, or nobody wants the rest
        pool.shutdown(wait=True, cancel_futures=True)


class _Waiting(NamedTuple):
    indices: NDArray[np.int64]
    patches: list[Future[NDArray[np.uint8]]]
