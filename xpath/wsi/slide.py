"""Whole-slide images: pixels under any box, at any size.

Frame: every box is in level-0 pixels. Axes: H W pixels.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from xpath.errors import ConfigError, ResolutionError, SlideError
from xpath.geometry import Box, Mpp, Size
from xpath.wsi.openslide_reader import OpenSlideReader
from xpath.wsi.pyramid import Level, Scale, Stretch, continued, inside_of, scale_of, span_of
from xpath.wsi.resolution import (
    SANE_MPP,
    contradiction,
    is_sane,
    stored_mpp,
    stored_objective,
)
from xpath.wsi.tiff_reader import faster
from xpath.wsi.view import View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from xpath.wsi.resample import Span

__all__ = ["Reader", "Slide"]

logger = logging.getLogger(__name__)

LARGEST_PIXELS = 2**38
"""A whole glass of 75 by 25 mm at 0.1 microns a pixel has fewer."""
SQUARE_TOLERANCE = 0.03
"""Pixels this much wider than high, or the reverse, are worth a warning."""
LEVEL_TOLERANCE = 1.001
"""A level counts as fine enough up to this factor: 4.0002 serves a request for 4."""
BLOCK_PIXELS = 2**24
"""Most pixels of a level read at once. Larger areas are shrunk block by block, so that the overview
of a slide without pyramid does not need the memory of all of it."""
BLOCK_THREADS = 2
"""Blocks in memory at the same time."""
SLOW_PIXELS = 2**28
"""Reading this much takes long enough to be announced."""


class Reader(Protocol):
    """An open file that gives the pixels of its levels, also to several threads."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Properties the file stores, by OpenSlide's names."""

    @property
    def level_dimensions(self) -> Sequence[tuple[int, int]]:
        """Width and height of each level."""

    @property
    def level_downsamples(self) -> Sequence[float]:
        """Level-0 pixels per pixel of each level, a mean of both axes."""

    def region(self, index: int, box: Box) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` under a box inside a level, in pixels of it."""

    def shift(self, index: int, corner: int) -> float:
        """How far past a corner a region really begins, along one axis, in pixels of the level."""

    def close(self) -> None:
        """Ends reading."""


class Slide:
    """A whole slide, open for reading.

    Example::

        with Slide.open("case.svs") as slide:
            patch = slide.read(Box(x=0, y=0, width=512, height=512), Size(256, 256))
    """

    def __init__(self, path: Path, reader: Reader, mpp: float | None) -> None:
        self.path = path
        self._reader = reader
        self.properties: Mapping[str, str] = dict(reader.properties)
        self.levels = tuple(
            Level(float(downsample), Size(*size))
            for downsample, size in zip(
                reader.level_downsamples, reader.level_dimensions, strict=True
            )
        )
        if self.size.width * self.size.height > LARGEST_PIXELS:
            raise SlideError(
                f"{path.name} claims {self.size.width} x {self.size.height} pixels, more than"
                " any glass holds; the file is damaged: copy or convert it again"
            )
        self.scales: tuple[Scale, ...] = tuple(
            scale_of(level.size, self.size) for level in self.levels
        )
        """Level-0 pixels per pixel of each level, across and down."""
        self._mpp = mpp if mpp is not None else self._stored_mpp()
        doubt = contradiction(mpp, self.objective)
        if doubt:
            logger.warning("%s: %s", path.name, doubt)

    @classmethod
    def open(cls, path: str | Path, *, mpp: float | None = None) -> Self:
        """Opens a slide.

        Args:
            path: Any file OpenSlide can read. The pyramid in the SubIFDs of an OME-TIFF, which
                OpenSlide does not see, is read too.
            mpp: Microns per pixel at level 0; overrides what the slide stores.

        Raises:
            SlideError: The file is missing, not a slide, or damaged.
            ResolutionError: ``mpp`` is absurd.
        """
        path = Path(path)
        if mpp is not None and not is_sane(mpp):
            raise ResolutionError(
                f"mpp= must be a number within {SANE_MPP} microns per pixel, got {mpp!r}"
            )
        return cls(path, _open(path), mpp)

    def __enter__(self) -> Self:
        """The slide itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
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
        """Ends reading, but keeps what is known about the slide."""
        self._reader.close()

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
            raise ResolutionError(f"{self.path.name} stores no resolution; {self._way_out()}")
        if not is_sane(self._mpp):
            raise ResolutionError(
                f"{self.path.name} stores {self._mpp:g} microns per pixel, which no microscope has;"
                f" {self._way_out()}"
            )
        return Mpp(self._mpp)

    @property
    def mpp_or_none(self) -> float | None:
        """Microns per pixel at level 0, None where unknown or absurd."""
        try:
            return self.mpp
        except ResolutionError:
            return None

    @property
    def objective(self) -> float | None:
        """Objective power the slide was scanned with, None where it is not stored."""
        return stored_objective(self.properties)

    @property
    def bounds(self) -> Box:
        """The scanned part of level 0, from whose corner QuPath measures."""
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
            for index, scale in enumerate(self.scales)
            if max(scale) <= downsample * LEVEL_TOLERANCE
        ]
        return max(fits, key=lambda index: max(self.scales[index]), default=0)

    def read(self, box: Box, size: Size | None = None) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` under a box, white outside the slide and where it is transparent.

        What is shown is the box to within half a level-0 pixel, whatever the level's downsample.
        Where a scanner cut a level short by a part of a pixel, its last pixel is continued.

        Args:
            box: In level-0 pixels; may reach beyond the slide.
            size: Pixels to return; by default one per level-0 pixel. Shrinking averages areas.

        Raises:
            SlideError: A part of the file is damaged, or the slide is closed.
        """
        size = size or box.size
        index, at_once = self._level_of(box, size)
        if not at_once:
            return self._read_blocks(box, index, size)
        return self._seen(self._view(box, index, size))

    def read_nested(
        self, box: Box, size: Size, inner: Box, inner_size: Size
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pixels under a box and under one inside it, decoded once, each as ``read`` gives it.

        Args:
            box: As of ``read``.
            size: As of ``read``.
            inner: A box inside, in level-0 pixels.
            inner_size: Pixels to return of it.

        Raises:
            SlideError: As of ``read``.
        """
        index, at_once = self._level_of(box, size)
        if not at_once:
            return self.read(box, size), self.read(inner, inner_size)
        outer = self._view(box, index, size)
        within = self._view(inner, self._level_of(inner, inner_size)[0], inner_size)
        pixels = self._region(index, outer.columns, outer.rows)
        part = outer.part_for(within, pixels)
        return outer.shown(pixels), self._seen(within) if part is None else within.shown(part)

    def read_level(self, index: int, box: Box | None = None) -> NDArray[np.uint8]:
        """One picture of the pyramid ``(H, W, 3)``, pixel by pixel as it is stored.

        Args:
            index: The level.
            box: In pixels of the level, by default all of it. White beyond the slide.

        Raises:
            SlideError: A part of the file is damaged, or the slide is closed.
        """
        size = self.levels[index].size
        box = box or Box(0, 0, size.width, size.height)
        return self._region(
            index, Stretch(box.x, box.width, box.x), Stretch(box.y, box.height, box.y)
        )

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """The whole slide ``(H, W, 3)``, its longer side ``max_side`` pixels or less."""
        if max_side < 1:
            raise ConfigError(f"max_side must be positive, got {max_side}")
        scale = max(1.0, max(self.size.width, self.size.height) / max_side)
        size = Size(max(1, round(self.size.width / scale)), max(1, round(self.size.height / scale)))
        return self.read(Box(0, 0, self.size.width, self.size.height), size)

    def _read_blocks(self, box: Box, index: int, size: Size) -> NDArray[np.uint8]:
        """An area that is too large to be in memory at once."""
        scale = self.scales[index]
        pixels = box.width / scale.x * box.height / scale.y
        if pixels > SLOW_PIXELS:
            logger.warning(
                "%s: %s pixels are read for a picture of %d x %d, because the slide has no level"
                " between; this takes a while",
                self.path.name,
                f"{pixels:,.0f}",
                size.width,
                size.height,
            )
        side = math.sqrt(BLOCK_PIXELS)
        across = max(1, int(side * scale.x * size.width / box.width))
        down = max(1, int(side * scale.y * size.height / box.height))
        parts = [
            Box(x, y, min(across, size.width - x), min(down, size.height - y))
            for y in range(0, size.height, down)
            for x in range(0, size.width, across)
        ]
        result = np.empty((size.height, size.width, 3), np.uint8)

        def fill(part: Box) -> None:
            block = self._seen(self._view(box, index, size, part))
            result[part.y : part.bottom, part.x : part.right] = block

        with ThreadPoolExecutor(BLOCK_THREADS, thread_name_prefix="xpath-block") as pool:
            for filled in [pool.submit(fill, part) for part in parts]:
                filled.result()
        return result

    def _level_of(self, box: Box, size: Size) -> tuple[int, bool]:
        """The level a box is read from, and whether it is small enough to be read at once."""
        if min(box.width, box.height, size.width, size.height) <= 0:
            raise SlideError(f"{self.path.name}: cannot read an empty box: {box} as {size}")
        index = self.best_level(max(1.0, min(box.width / size.width, box.height / size.height)))
        scale = self.scales[index]
        # Enlarging in blocks would blur their borders.
        enlarged = size.width > box.width or size.height > box.height
        return index, enlarged or box.width * box.height <= BLOCK_PIXELS * scale.x * scale.y

    def _seen(self, view: View) -> NDArray[np.uint8]:
        """The picture of a view."""
        return view.shown(self._region(view.level, view.columns, view.rows))

    def _view(self, box: Box, index: int, size: Size, part: Box | None = None) -> View:
        """The picture that ``read`` gives of a box, or a part of it in pixels of that picture."""
        part = part or Box(0, 0, size.width, size.height)
        scale = self.scales[index]
        step_x, step_y = box.width / size.width, box.height / size.height
        across = span_of(box.x + part.x * step_x, part.width * step_x, scale.x)
        down = span_of(box.y + part.y * step_y, part.height * step_y, scale.y)
        stored = self.levels[index].size
        return View(
            index,
            across,
            down,
            columns=self._stretch(index, across, stored.width),
            rows=self._stretch(index, down, stored.height),
            size=part.size,
            even=max(scale) > 1,
        )

    def _stretch(self, index: int, span: Span, stored: int) -> Stretch:
        """Pixels of a level that hold a span along one axis."""
        first, last = math.floor(span[0]), math.ceil(span[1])
        begin = first + self._reader.shift(index, max(0, first))
        if last < stored:
            last = max(last, first + math.ceil(span[1] - begin))
        return Stretch(first, last - first, begin)

    def _region(self, index: int, columns: Stretch, rows: Stretch) -> NDArray[np.uint8]:
        """Pixels of a level, which may reach beyond it."""
        stored, scale = self.levels[index].size, self.scales[index]
        region = Box(columns.first, rows.first, columns.pixels, rows.pixels)
        inside = inside_of(region, stored)
        if inside == region:
            return self._reader.region(index, region)
        x, across = continued(columns, stored.width, self.size.width / scale.x)
        y, down = continued(rows, stored.height, self.size.height / scale.y)
        if not (down.any() and across.any()):
            return np.full((rows.pixels, columns.pixels, 3), 255, np.uint8)
        pixels = self._reader.region(index, inside)[y - inside.y][:, x - inside.x]
        weight = (down[:, None] * across)[..., None]
        return np.rint(pixels * weight + 255 * (1 - weight)).astype(np.uint8)

    def _way_out(self) -> str:
        """Advice for who has no resolution."""
        objective = self.objective
        scanned = f"; it was scanned with a {objective:g}x objective" if objective else ""
        return f"pass mpp= (--mpp on the command line), often 0.25 (40x) or 0.5 (20x){scanned}"

    def _stored_mpp(self) -> float | None:
        stored = stored_mpp(self.properties, self.size)
        if stored is None:
            return None
        if abs(stored.x - stored.y) > SQUARE_TOLERANCE * max(map(abs, stored)):
            logger.warning(
                "%s: pixels are not square, %g microns across and %g down; their mean is used",
                self.path.name,
                stored.x,
                stored.y,
            )
        return (stored.x + stored.y) / 2


def _open(path: Path) -> Reader:
    return faster(OpenSlideReader(path))


def _reopen(slide_type: type[Slide], path: Path, mpp: float | None) -> Slide:
    return slide_type(path, _open(path), mpp)
