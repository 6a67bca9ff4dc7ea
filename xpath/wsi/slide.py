"""Whole-slide images, read with OpenSlide.

Frame: every box is in level-0 pixels. Axes: H W pixels.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from xpath.errors import ResolutionError, SlideError
from xpath.geometry import Box, Mpp, Size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["Level", "Slide", "on_white", "resize"]

logger = logging.getLogger(__name__)

SANE_MPP = (0.02, 20.0)
LEVEL_TOLERANCE = 1.001
"""A level counts as fine enough up to this factor: 4.0002 serves a request for 4."""


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
        self._handle = handle
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
        if mpp is not None and not SANE_MPP[0] <= mpp <= SANE_MPP[1]:
            raise ResolutionError(f"mpp= must be within {SANE_MPP} microns per pixel, got {mpp}")
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
        return _reopen, (self.path, self._mpp)

    def close(self) -> None:
        """Closes the file; reading is over."""
        self._handle.close()

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
        if not SANE_MPP[0] <= self._mpp <= SANE_MPP[1]:
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
        power = self.properties.get("openslide.objective-power")
        return None if power is None else float(power)

    @property
    def bounds(self) -> Box:
        """The scanned part of level 0; QuPath measures from its corner."""
        values = [
            self.properties.get(f"openslide.bounds-{k}") for k in ("x", "y", "width", "height")
        ]
        if any(value is None for value in values):
            return Box(0, 0, self.size.width, self.size.height)
        x, y, width, height = (int(value) for value in values if value is not None)
        return Box(x, y, width, height)

    def best_level(self, downsample: float) -> int:
        """The coarsest level that is still as fine as ``downsample`` asks."""
        fits = [
            index
            for index, level in enumerate(self.levels)
            if level.downsample <= downsample * LEVEL_TOLERANCE
        ]
        return max(fits, key=lambda index: self.levels[index].downsample, default=0)

    def read(self, box: Box, size: Size | None = None) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` under a box; white outside the slide and where it is transparent.

        Args:
            box: In level-0 pixels; may reach beyond the slide.
            size: Pixels to return; by default one per level-0 pixel. Shrinking averages areas.

        Raises:
            SlideError: A part of the file is damaged.
        """
        size = size or box.size
        if min(box.width, box.height, size.width, size.height) <= 0:
            raise SlideError(f"cannot read an empty box: {box} as {size}")
        wanted = min(box.width / size.width, box.height / size.height)
        index = self.best_level(max(wanted, 1.0))
        level = self.levels[index]
        # What is read is a whole number of the level's pixels; the true footprint may be a part
        # of one less. Rounding (never truncating) keeps the error below half a pixel.
        width = max(1, round(box.width / level.downsample))
        height = max(1, round(box.height / level.downsample))
        pixels = self._read_level((box.x, box.y), index, (width, height))
        return resize(on_white(pixels), size)

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """The whole slide ``(H, W, 3)``, its longer side ``max_side`` pixels or less."""
        scale = max(1.0, max(self.size.width, self.size.height) / max_side)
        size = Size(max(1, round(self.size.width / scale)), max(1, round(self.size.height / scale)))
        return self.read(Box(0, 0, self.size.width, self.size.height), size)

    def _read_level(
        self, corner: tuple[int, int], level: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        import openslide

        handle = self._handle
        try:
            return np.asarray(handle.read_region(corner, level, size))
        except openslide.OpenSlideError as error:
            self._recover(handle)
            raise SlideError(
                f"{self.path.name} is damaged near {corner} (level {level}, {size} px): {error}"
            ) from error

    def _recover(self, broken: Any) -> None:
        """After one bad tile OpenSlide refuses all others until the file is opened again."""
        with self._lock:
            if self._handle is broken:
                self._handle = _open(self.path)
                broken.close()

    def _stored_mpp(self) -> float | None:
        try:
            x, y = (float(self.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        except (KeyError, ValueError):
            return None
        if abs(x - y) > 0.02 * max(x, y):
            logger.warning("%s has other mpp across (%g) than down (%g)", self.path.name, x, y)
        return (x + y) / 2


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` of RGBA ``(H, W, 4)`` laid on white glass."""
    alpha = pixels[..., 3]
    if (alpha == 255).all():
        return np.ascontiguousarray(pixels[..., :3])
    weight = alpha[..., None].astype(np.float32) / 255
    blended = pixels[..., :3] * weight + 255 * (1 - weight)
    return np.rint(blended).astype(np.uint8)


def resize(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Pixels ``(H, W, 3)`` at another size: areas are averaged, enlarging is bilinear."""
    import cv2

    height, width = pixels.shape[:2]
    if (width, height) == (size.width, size.height):
        return pixels
    shrinks = size.width <= width and size.height <= height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, (size.width, size.height), interpolation=method)
    return np.asarray(resized, np.uint8)


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


def _reopen(path: Path, mpp: float | None) -> Slide:
    return Slide(path, _open(path), mpp)
