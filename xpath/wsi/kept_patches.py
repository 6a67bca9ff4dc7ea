"""Patches that are needed twice, decoded once: first amid their surroundings, then as they are.

The segmentor is shown a window around each patch and the patch encoder the patch alone, when all
windows have been answered. So the patch is cut out of what is decoded for its window, and waits in
a temporary file.
"""

from __future__ import annotations

import logging
import tempfile
from threading import Lock
from typing import TYPE_CHECKING, Self

import numpy as np

from xpath.geometry import Box, Size
from xpath.store.schema import FULL

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.wsi.slide import Slide

__all__ = ["KeptPatches"]

logger = logging.getLogger(__name__)

CHANNELS = 3


class KeptPatches:
    """Stands in for a slide, and keeps the patches of a grid whose windows are read through it.

    Example::

        with KeptPatches(folder) as kept:
            with Slide.open(path) as slide:
                kept.start(slide, grid)
                for window in windows:
                    kept.read(window, size)
            if kept.complete:
                pixels = kept.read(grid.box(0), Size(grid.pixels, grid.pixels))
    """

    def __init__(self, folder: Path) -> None:
        """Takes the folder for the file, which is gone when this is closed."""
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  by __exit__
        self._lock = Lock()
        self._slide: Slide | None = None
        self._grid: PatchGrid | None = None
        self._index: dict[tuple[int, int], int] = {}
        self._there: set[int] = set()
        self._full = False

    def __enter__(self) -> Self:
        """The patches themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the file."""
        self._file.close()

    def start(self, slide: Slide, grid: PatchGrid) -> Self:
        """Takes the slide that is read from, and the grid of the patches to keep."""
        self._slide, self._grid = slide, grid
        self._index = {(int(x), int(y)): index for index, (x, y) in enumerate(grid.coords)}
        self._there = set()
        return self

    @property
    def path(self) -> Path:
        """File of the slide."""
        return self._opened().path

    @property
    def size(self) -> Size:
        """Size of the slide at level 0 in pixels."""
        return self._opened().size

    @property
    def complete(self) -> bool:
        """True if every patch of the grid was kept. Then the slide is not read any more."""
        return self._grid is not None and len(self._there) == len(self._grid)

    def read(self, box: Box, size: Size | None = None) -> NDArray[np.uint8]:
        """As of ``Slide.read``, of a patch that is kept without reading the slide.

        Args:
            box: In level-0 pixels. A patch, or a window as far around one on every side.
            size: Pixels to return.
        """
        slide, grid, size = self._opened(), self._grid, size or box.size
        if grid is None:
            return slide.read(box, size)
        patch = _amid(box, grid.footprint)
        index, pixels = self._index.get((patch.x, patch.y)), Size(grid.pixels, grid.pixels)
        if index is None or self._full:
            return slide.read(box, size)
        if (box, size) == (patch, pixels):
            return (
                self._kept(index)
                if index in self._there
                else self._keep(index, slide.read(box, size))
            )
        window, inner = slide.read_nested(box, size, patch, pixels)
        self._keep(index, inner)
        return window

    def _opened(self) -> Slide:
        if self._slide is None:
            raise ValueError("call start() first")
        return self._slide

    def _keep(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Writes a patch down, and gives it back. On a full disk no more patches are kept."""
        try:
            with self._lock:
                self._file.seek(index * pixels.nbytes)
                self._file.write(pixels.tobytes())
                self._there.add(index)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._full = True
            self._file.truncate(0)
            logger.info("no room to keep patches of %s: it will be read twice", self.path.name)
        return pixels

    def _kept(self, index: int) -> NDArray[np.uint8]:
        side = self._grid.pixels if self._grid else 0
        length = side * side * CHANNELS
        with self._lock:
            self._file.seek(index * length)
            stored = self._file.read(length)
        return np.frombuffer(stored, np.uint8).reshape(side, side, CHANNELS)


def _amid(box: Box, footprint: int) -> Box:
    """The patch in the middle of a window."""
    margin = (box.width - footprint) // 2
    return Box(box.x + margin, box.y + margin, footprint, footprint)
