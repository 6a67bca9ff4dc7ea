"""Whole-slide images, read with OpenSlide.

Frame: every box is in level-0 pixels. Axes: H W pixels.
"""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from xpath.errors import ConfigError, ResolutionError, SlideError
from xpath.geometry import Box, Mpp, Size
from xpath.wsi.resample import Span, on_white, resample

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["Level", "Slide"]

logger = logging.getLogger(__name__)

SANE_MPP = (0.02, 20.0)
SQUARE_TOLERANCE = 0.03
"""Pixels this much wider than high, or the reverse, are worth a warning."""
LEVEL_TOLERANCE = 1.001
"""A level counts as fine enough up to this factor: 4.0002 serves a request for 4."""
EDGE_TOLERANCE = 0.5
"""Level-0 pixels the edge of a read may be off; more is corrected by resampling. Boxes are whole
level-0 pixels, so they are themselves no more exact."""
READ_PIXELS = 2**24
"""Most pixels asked of OpenSlide at once; larger areas are shrunk strip by strip, so that the
overview of a slide without pyramid does not need the memory of all of it."""


class Level(NamedTuple):
    """One picture of the pyramid."""

    downsample: float
    """Level-0 pixels per pixel of this level."""
    size: Size


class Slide:
    """A whole slide, open for reading.

    Example::

        with Slide.open("case.svs") as slide:
            patch = slide.read(Box(x=0, y=0, width=512, height=512), Size(256, 256))
    """

    def __init__(self, path: Path, handle: Any, mpp: float | None) -> None:
        self.path = path
        self._handle = handle  # None after a damaged tile: opened again by the next read
        self._closed = False
        self._lock = threading.Lock()
        self.properties: Mapping[str, str] = dict(handle.properties)
        self.levels = tuple(
            Level(float(downsample), Size(*size))
            for downsample, size in zip(
                handle.level_downsamples, handle.level_dimensions, strict=True
            )
        )
        self._mpp = mpp if mpp is not None else self._stored_mpp()

    @classmethod
    def open(cls, path: str | Path, *, mpp: float | None = None) -> Self:
        """Opens a slide.

        Args:
            path: Any file OpenSlide can read.
            mpp: Microns per pixel at level 0; overrides what the slide stores.

        Raises:
            SlideError: The file is missing, or not a slide.
            ResolutionError: ``mpp`` is absurd.
        """
        path = Path(path)
        if mpp is not None and not _is_sane(mpp):
            raise ResolutionError(
                f"mpp= must be a number within {SANE_MPP} microns per pixel, got {mpp!r}"
            )
        return cls(path, _open(path), mpp)

    def __enter__(self) -> Self:
        """The slide itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels to another process as its path, and is opened again there."""
        return _reopen, (type(self), self.path, self._mpp)

    def __repr__(self) -> str:
        return f"Slide({str(self.path)!r}, {self.size.width} x {self.size.height} px)"

    def close(self) -> None:
        """Ends reading; what is known about the slide stays.

        The handle is let go, not closed: OpenSlide ends the process if a handle is closed while
        another thread reads from it. So the file is closed when the last of them is done.
        """
        with self._lock:
            self._closed = True
            self._handle = None

    @property
    def size(self) -> Size:
        """Size of level 0 in pixels."""
        return self.levels[0].size

    @property
    def mpp(self) -> Mpp:
        """Microns per pixel at level 0.

        Raises:
            ResolutionError: The slide stores none, or an absurd one, and none was given.
        """
        if self._mpp is None:
            raise ResolutionError(
                f"{self.path.name} stores no resolution; pass mpp= (--mpp on the command line),"
                " often 0.25 (40x) or 0.5 (20x)"
            )
        if not _is_sane(self._mpp):
            raise ResolutionError(
                f"{self.path.name} says {self._mpp:g} microns per pixel, which no microscope has;"
                " pass mpp= (--mpp on the command line), often 0.25 (40x) or 0.5 (20x)"
            )
        return Mpp(self._mpp)

    @property
    def mpp_or_none(self) -> float | None:
        """Microns per pixel at level 0; None where unknown or absurd."""
        try:
            return self.mpp
        except ResolutionError:
            return None

    @property
    def objective(self) -> float | None:
        """Objective power the slide was scanned with; None where it is not stored."""
        try:
            return float(self.properties["openslide.objective-power"])
        except (KeyError, ValueError):
            return None

    @property
    def bounds(self) -> Box:
        """The scanned part of level 0; QuPath measures from its corner."""
        try:
            x, y, width, height = (
                int(self.properties[f"openslide.bounds-{side}"])
                for side in ("x", "y", "width", "height")
            )
        except (KeyError, ValueError):
            return Box(0, 0, self.size.width, self.size.height)
        return Box(x, y, width, height)

    def best_level(self, downsample: float) -> int:
        """The coarsest level that is still as fine as ``downsample`` asks, within 0.1%."""
        fits = [
            index
            for index, level in enumerate(self.levels)
            if level.downsample <= downsample * LEVEL_TOLERANCE
        ]
        return max(fits, key=lambda index: self.levels[index].downsample, default=0)

    def read(self, box: Box, size: Size | None = None) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` under a box; white outside the slide and where it is transparent.

        What is shown is the box to within half a level-0 pixel, whatever the level's downsample.

        Args:
            box: In level-0 pixels; may reach beyond the slide.
            size: Pixels to return; by default one per level-0 pixel. Shrinking averages areas.

        Raises:
            SlideError: A part of the file is damaged, or the slide is closed.
        """
        size = size or box.size
        if min(box.width, box.height, size.width, size.height) <= 0:
            raise SlideError(f"{self.path.name}: cannot read an empty box: {box} as {size}")
        wanted = max(1.0, min(box.width / size.width, box.height / size.height))
        index = self.best_level(wanted)
        area = box.width * box.height / self.levels[index].downsample ** 2
        strips = math.ceil(area / READ_PIXELS)
        if strips == 1 or size.height > box.height:  # enlarging a strip would blur its border
            return self._read_rows(box, index, size, range(size.height))
        rows = math.ceil(size.height / strips)
        result = np.empty((size.height, size.width, 3), np.uint8)
        for start in range(0, size.height, rows):
            part = range(start, min(start + rows, size.height))
            result[start : part.stop] = self._read_rows(box, index, size, part)
        return result

    def read_level(self, index: int) -> NDArray[np.uint8]:
        """One whole picture of the pyramid ``(H, W, 3)``, pixel by pixel as it is stored."""
        level = self.levels[index].size
        return on_white(self._region(Box(0, 0, level.width, level.height), index))

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """The whole slide ``(H, W, 3)``, its longer side ``max_side`` pixels or less."""
        if max_side < 1:
            raise ConfigError(f"max_side must be positive, got {max_side}")
        scale = max(1.0, max(self.size.width, self.size.height) / max_side)
        size = Size(max(1, round(self.size.width / scale)), max(1, round(self.size.height / scale)))
        return self.read(Box(0, 0, self.size.width, self.size.height), size)

    def _read_rows(self, box: Box, index: int, size: Size, rows: range) -> NDArray[np.uint8]:
        """Some rows of the picture that ``read`` gives."""
        downsample = self.levels[index].downsample
        scale = box.height / size.height
        top, height = box.y + rows.start * scale, len(rows) * scale
        y = math.floor(top)
        across = _span(0, box.width, downsample, EDGE_TOLERANCE)
        # Strips must fit each other exactly, or a seam shows.
        tolerance = EDGE_TOLERANCE if len(rows) == size.height else 1e-6
        down = _span(top - y, height, downsample, tolerance)
        region = Box(box.x, y, math.ceil(across[1]), math.ceil(down[1]))
        pixels = on_white(self._region(region, index))
        return resample(pixels, across, down, Size(size.width, len(rows)))

    def _region(self, region: Box, index: int) -> NDArray[np.uint8]:
        """RGBA pixels; the corner in level-0 pixels, the size in pixels of the level.

        Once a tile is damaged OpenSlide refuses every tile until the file is opened again. The
        second try on a fresh handle tells damage here from damage another thread has met. The old
        handle is let go, not closed: other threads may be reading from it.
        """
        import openslide

        handle = self._open_handle()
        try:
            return _pixels(handle, region, index)
        except openslide.OpenSlideError:
            with self._lock:
                self._handle = None if self._handle is handle else self._handle
        fresh = _open(self.path)
        try:
            pixels = _pixels(fresh, region, index)
        except openslide.OpenSlideError as error:
            fresh.close()
            raise SlideError(
                f"{self.path.name} is damaged at {region} (corner at level 0, size at level"
                f" {index}): {error}"
            ) from error
        with self._lock:
            if self._handle is None and not self._closed:
                self._handle = fresh
        return pixels

    def _open_handle(self) -> Any:
        with self._lock:
            if self._closed:
                raise SlideError(f"{self.path.name} is closed; read within its with block")
            if self._handle is None:
                self._handle = _open(self.path)
            return self._handle

    def _stored_mpp(self) -> float | None:
        try:
            x, y = (float(self.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        except (KeyError, ValueError):
            return None
        if abs(x - y) > SQUARE_TOLERANCE * max(x, y):
            logger.warning(
                "%s: pixels are not square, %g microns across and %g down; their mean is used",
                self.path.name,
                x,
                y,
            )
        return (x + y) / 2


def _span(start: float, length: float, downsample: float, tolerance: float) -> Span:
    """Where a stretch of level 0 lies in the pixels read from a level.

    Args:
        start: Level-0 pixels past the first pixel that is read.
        length: Level-0 pixels.
        downsample: Level-0 pixels per pixel of the level.
        tolerance: Level-0 pixels it may be off if that gives whole pixels.
    """
    stop = (start + length) / downsample
    whole = max(1, round(stop))
    if start <= tolerance and abs(whole - stop) * downsample <= tolerance:
        return 0, whole
    return start / downsample, stop


def _pixels(handle: Any, region: Box, index: int) -> NDArray[np.uint8]:
    return np.asarray(
        handle.read_region((region.x, region.y), index, (region.width, region.height)), np.uint8
    )


def _is_sane(mpp: object) -> bool:
    """True for a resolution that a microscope may have."""
    return isinstance(mpp, int | float | np.floating) and bool(SANE_MPP[0] <= mpp <= SANE_MPP[1])


def _open(path: Path) -> Any:
    """An OpenSlide handle."""
    import openslide

    if not path.exists():
        raise SlideError(f"{path} does not exist")
    if path.is_dir():
        raise SlideError(f"{path} is a folder, not a slide; pass one of the files in it")
    try:
        return openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise SlideError(
            f"{path} is no slide OpenSlide can read ({error}); is the file complete?"
        ) from error


def _reopen(kind: type[Slide], path: Path, mpp: float | None) -> Slide:
    return kind(path, _open(path), mpp)
