"""Object masks of a slide as one picture, strip by strip from its top.

A pixel of the picture shows the mask pixel under its centre; where patches overlap, an object is
where any of them has it. Axes: L labels, h w pixels of the picture, S side of a mask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError
from xpath.geometry import Size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.store.masks import SlideMasks

__all__ = ["Canvas", "Strip", "patch_canvas", "strips", "whole_canvas"]


class Canvas(NamedTuple):
    """Position, scale and size of the picture on the slide."""

    corner: tuple[float, float]
    """x, y of its top left corner, level-0 pixels."""
    scale: tuple[float, float]
    """Level-0 pixels per pixel of the picture, across and down."""
    size: Size
    shrink: int = 1
    """Mask pixels, along each axis, that are made one before they are shown. At least half of
    them must be in."""


class Strip(NamedTuple):
    """Some rows of the picture."""

    top: int
    """Its first row."""
    masks: NDArray[np.bool_]
    """``(L, h, w)``."""
    covered: NDArray[np.bool_]
    """``(h, w)`` where there is a patch. Outside, nothing is known."""


def patch_canvas(masks: SlideMasks) -> Canvas:
    """The canvas that the patches span, one pixel for a mask pixel, ending where the slide ends."""
    grid = masks.grid
    scale = grid.footprint / masks.size
    corner = grid.coords.min(axis=0)
    ends = np.minimum(
        grid.coords.max(axis=0) + grid.footprint, (grid.slide_size.width, grid.slide_size.height)
    )
    # Rounding must not add a row of nothing: 256.0000001 pixels are 256.
    width, height = np.ceil((ends - corner) / scale - 1e-6).astype(int).tolist()
    return Canvas((float(corner[0]), float(corner[1])), (scale, scale), Size(width, height))


def whole_canvas(masks: SlideMasks, most: int) -> Canvas:
    """The whole slide, as fine as the masks or coarser by a power of two.

    Args:
        masks: Object masks.
        most: Pixels of all labels together that may not be exceeded, if halving can help it.
    """
    slide, side = masks.grid.slide_size, masks.size
    shrink = 1
    while True:
        scale = max(1.0, shrink * masks.grid.footprint / side)
        size = Size(math.ceil(slide.width / scale), math.ceil(slide.height / scale))
        if len(masks.labels) * size.width * size.height <= most or side % (2 * shrink):
            exact = (slide.width / size.width, slide.height / size.height)
            return Canvas((0.0, 0.0), exact, size, shrink)
        shrink *= 2


def strips(masks: SlideMasks, labels: Sequence[str], canvas: Canvas) -> Iterator[Strip]:
    """All rows of the picture, in order. Each patch is read once.

    Args:
        masks: Object masks.
        labels: L of those the masks have.
        canvas: Where the picture lies.

    Raises:
        ConfigError: A shrinking that does not divide the side of the masks.
        StoreError: A part of the masks is damaged.
    """
    if masks.size % canvas.shrink:
        raise ConfigError(f"masks of {masks.size} px cannot be shrunk by {canvas.shrink}")
    columns = [masks.labels.index(label) for label in labels]
    side = max(1, math.ceil(masks.grid.footprint / canvas.scale[1]) + 1)
    width, height = canvas.size.width, canvas.size.height
    # No patch is higher than a strip, so none meets more than two.
    buffer = np.zeros((len(columns) + 1, 2 * side, width), np.bool_)
    tops = [_axis(masks, canvas, index, 1)[0] for index in range(len(masks))]
    order = np.argsort(tops, kind="stable")
    starts = np.asarray(tops)[order]
    for top in range(0, height, side):
        first, last = np.searchsorted(starts, (top, top + side))
        for index in order[first:last].tolist():
            _paint(buffer, masks, columns, index, (canvas, top))
        rows = min(side, height - top)
        yield Strip(top, buffer[:-1, :rows], buffer[-1, :rows])
        buffer[:, :side] = buffer[:, side:]
        buffer[:, side:] = False


def _paint(
    buffer: NDArray[np.bool_],
    masks: SlideMasks,
    columns: list[int],
    index: int,
    place: tuple[Canvas, int],
) -> None:
    """Lays a patch on the buffer ``(L + 1, h, w)``, whose last picture is what is covered."""
    canvas, top = place
    row, down = _axis(masks, canvas, index, 1)
    column, across = _axis(masks, canvas, index, 0)
    window = (slice(row - top, row - top + len(down)), slice(column, column + len(across)))
    buffer[-1][window] = True
    used = [number for number, each in enumerate(columns) if masks.area[index, each]]
    if not used:
        return
    read = masks.read(index)
    for number in used:
        mask = _shrunk(read[columns[number]], canvas.shrink)
        buffer[number][window] |= mask[np.ix_(down, across)]


def _axis(
    masks: SlideMasks, canvas: Canvas, index: int, axis: int
) -> tuple[int, NDArray[np.int64]]:
    """The first pixel of the picture whose centre is in a patch, and the mask pixel under each."""
    grid: PatchGrid = masks.grid
    limit = canvas.size.height if axis else canvas.size.width
    start = float(grid.coords[index, axis]) - canvas.corner[axis]
    scale, pixels = canvas.scale[axis], masks.size // canvas.shrink
    first = max(0, math.ceil(start / scale - 0.5))
    stop = max(first, min(limit, math.ceil((start + grid.footprint) / scale - 0.5)))
    centres = (np.arange(first, stop) + 0.5) * scale - start
    under = np.floor(centres * pixels / grid.footprint).astype(np.int64)
    return first, np.clip(under, 0, pixels - 1)


def _shrunk(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """A mask ``(S / factor, S / factor)``: in where at least half of the pixels are."""
    if factor == 1:
        return mask
    side = len(mask) // factor
    count = mask.reshape(side, factor, side, factor).sum(axis=(1, 3))
    return np.asarray(2 * count >= factor**2)
