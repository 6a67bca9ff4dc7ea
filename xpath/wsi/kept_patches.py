"""Patches that are needed twice, decoded once: first amid their surroundings, then as they are.

The segmentor is shown a window around each patch and the patch encoder the patch alone, when all
windows have been answered. So the patch is cut out of what is decoded for its window, and waits in
a temporary file.
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from threading import Lock
from typing import IO, TYPE_CHECKING, NamedTuple, Self

import numpy as np

from xpath.errors import SlideError
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


class _Source(NamedTuple):
    """What is read, and where it waits."""

    slide: Slide
    grid: PatchGrid
    numbers: dict[tuple[int, int], int]
    """Corner of a patch to its position in the grid."""
    file: IO[bytes]


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
        """Takes the folder for a file, which is made by ``start`` and gone when this is closed."""
        self._folder = folder
        self._exit = ExitStack()
        self._started: _Source | None = None
        self._there: set[int] = set()
        self._lock = Lock()
        self._full = False

    def __enter__(self) -> Self:
        """The patches themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the file."""
        self._exit.close()

    def start(self, slide: Slide, grid: PatchGrid) -> Self:
        """Takes the slide that is read from, and the grid of the patches to keep."""
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  closed by __exit__
        numbers = {(x, y): number for number, (x, y) in enumerate(grid.coords.tolist())}
        self._started = _Source(slide, grid, numbers, self._exit.enter_context(file))
        return self

    @property
    def path(self) -> Path:
        """File of the slide."""
        return self._source.slide.path

    @property
    def size(self) -> Size:
        """Size of the slide at level 0 in pixels."""
        return self._source.slide.size

    @property
    def complete(self) -> bool:
        """True if every patch of the grid was kept. Then the slide is not read any more."""
        return self._started is not None and len(self._there) == len(self._started.grid)

    def read(self, box: Box, size: Size) -> NDArray[np.uint8]:
        """As of ``Slide.read``, of a patch that is kept without reading the slide.

        Args:
            box: In level-0 pixels. A patch, or a window as far around one on every side.
            size: Pixels to return.
        """
        slide, grid, numbers, _ = self._source
        patch, pixels = _amid(box, grid.footprint), Size(grid.pixels, grid.pixels)
        number = numbers.get((patch.x, patch.y))
        if number is None or self._full:
            return slide.read(box, size)
        if number in self._there and (box, size) == (patch, pixels):
            return self._kept(number)
        if (box, size) == (patch, pixels):
            window = inner = slide.read(box, size)
        else:
            window, inner = slide.read_nested(box, size, patch, pixels)
        self._keep(number, inner)
        return window

    @property
    def _source(self) -> _Source:
        if self._started is None:
            raise SlideError("there is no slide yet to read patches of; call start() first")
        return self._started

    def _keep(self, number: int, pixels: NDArray[np.uint8]) -> None:
        """Writes a patch down. On a full disk no more patches are kept, and none of those there."""
        file = self._source.file
        try:
            with self._lock:
                file.seek(number * pixels.nbytes)
                file.write(pixels.tobytes())
                file.flush()
                self._there.add(number)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._full = True
            self._there.clear()
            logger.info("no room to keep patches of %s: it will be read twice", self.path.name)

    def _kept(self, number: int) -> NDArray[np.uint8]:
        side, file = self._source.grid.pixels, self._source.file
        length = side * side * CHANNELS
        with self._lock:
            file.seek(number * length)
            stored = file.read(length)
        return np.frombuffer(stored, np.uint8).reshape(side, side, CHANNELS)


def _amid(box: Box, footprint: int) -> Box:
    """The patch in the middle of a window."""
    margin = (box.width - footprint) // 2
    return Box(box.x + margin, box.y + margin, footprint, footprint)
