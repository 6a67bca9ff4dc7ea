"""Object masks of a slide as one picture, strip by strip from its top.

A pixel of the picture shows the mask pixel under its centre. Where patches overlap, an object is
where any of them has it, and where rounding left a level-0 pixel between two patches, the first
reaches over it. Axes: L labels, h w pixels of the picture, S side of a mask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError
from xpath.geometry import Size
from xpath.store.reduction import reduced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.store.masks import SlideMasks

__all__ = [
    "Canvas",
    "Strip",
    "closing_gaps",
    "patch_canvas",
    "patch_windows",
    "strips",
    "whole_canvas",
]


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
    patches: NDArray[np.int64]
    """Indices of the patches that lie on it."""
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


def patch_windows(masks: SlideMasks, canvas: Canvas) -> NDArray[np.int64]:
    """``(N, 4)`` top, left, bottom, right of each patch on the picture, clipped to it."""
    edges = np.stack((masks.grid.coords, _ends(masks.grid)), axis=1) - canvas.corner
    first = np.ceil(edges / canvas.scale - 0.5).astype(np.int64)  # whose centre is not before it
    limit = (canvas.size.width, canvas.size.height)
    return np.asarray(first.clip(0, limit)[:, :, ::-1].reshape(-1, 4))


def closing_gaps(windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Columns ``(N,)`` by which patches move left so that no gap is wider than one column.

    What touches still does and what is apart stays apart, so the objects are the same, but sparse
    tissue on a large glass takes the room of the tissue.

    Args:
        windows: From ``patch_windows``.
    """
    order = np.argsort(windows[:, 1], kind="stable")
    left, right = windows[order, 1], windows[order, 3]
    gaps = left[1:] - np.maximum.accumulate(right)[:-1]
    moves = np.zeros(len(windows), np.int64)
    moves[order[1:]] = np.cumsum((gaps - 1).clip(min=0))
    return moves


def strips(
    masks: SlideMasks,
    labels: Sequence[str],
    canvas: Canvas,
    moves: NDArray[np.int64] | None = None,
) -> Iterator[Strip]:
    """All rows of the picture, in order. Each patch is read once.

    Args:
        masks: Object masks.
        labels: L of those the masks have.
        canvas: Where the picture lies.
        moves: ``(N,)`` columns by which each patch lies further left; the picture is narrower by
            the largest.

    Raises:
        ConfigError: A shrinking that does not divide the side of the masks.
        StoreError: A part of the masks is damaged.
    """
    if masks.size % canvas.shrink:
        raise ConfigError(f"masks of {masks.size} px cannot be shrunk by {canvas.shrink}")
    columns = [masks.labels.index(label) for label in labels]
    side = max(1, math.ceil(masks.grid.footprint / canvas.scale[1]) + 1)
    moves = np.zeros(len(masks.grid), np.int64) if moves is None else moves
    width, height = canvas.size.width - int(moves.max()), canvas.size.height
    # No patch is higher than a strip, so none meets more than two.
    buffer = np.zeros((len(columns) + 1, 2 * side, width), np.bool_)
    spans, ends = patch_windows(masks, canvas), _ends(masks.grid)
    order = np.argsort(spans[:, 0], kind="stable")
    starts = spans[order, 0]
    for top in range(0, height, side):
        first, last = np.searchsorted(starts, (top, top + side))
        for index in order[first:last].tolist():
            row, left, low, right = spans[index].tolist()
            down = _under(masks, canvas, 1, (row, low), (index, ends))
            across = _under(masks, canvas, 0, (left, right), (index, ends))
            moved = slice(left - moves[index], right - moves[index])
            view = buffer[:, row - top : low - top, moved]
            _paint(view, masks, columns, index, np.ix_(down, across), canvas.shrink)
        rows = min(side, height - top)
        here = np.flatnonzero((spans[:, 0] < top + rows) & (spans[:, 2] > top))
        yield Strip(top, here, buffer[:-1, :rows], buffer[-1, :rows])
        if here.size:  # else it is empty
            buffer[:, :side] = buffer[:, side:]
            buffer[:, side:] = False


def _paint(
    view: NDArray[np.bool_],
    masks: SlideMasks,
    columns: list[int],
    index: int,
    under: tuple[NDArray[np.int64], ...],
    shrink: int,
) -> None:
    """Lays a patch on its part of the buffer ``(L + 1, h, w)``, the last for what is covered."""
    view[-1] = True
    used = [number for number, each in enumerate(columns) if masks.area[index, each]]
    if not used:
        return
    read = masks.read(index)
    for number in used:
        view[number] |= reduced(read[columns[number]], shrink)[under]


def _under(
    masks: SlideMasks,
    canvas: Canvas,
    axis: int,
    span: tuple[int, int],
    patch: tuple[int, NDArray[np.int64]],
) -> NDArray[np.int64]:
    """The mask pixel of a patch under each pixel of the picture in a span along an axis."""
    index, ends = patch
    start = int(masks.grid.coords[index, axis])
    pixels = masks.size // canvas.shrink
    centres = (np.arange(*span) + 0.5) * canvas.scale[axis] + canvas.corner[axis] - start
    under: NDArray[np.int64] = np.floor(centres * pixels / (ends[index, axis] - start)).astype(int)
    return under.clip(0, pixels - 1)


def _ends(grid: PatchGrid) -> NDArray[np.int64]:
    """``(N, 2)`` right and lower end of each patch, level-0 pixels.

    Steps between patches are rounded one by one, so neighbours may lie a pixel apart; the first
    then reaches over it, and an object across such a seam is still one object.
    """
    ends = grid.coords + grid.footprint
    corners = set(map(tuple, grid.coords.tolist()))
    for end, (x, y), (right, bottom) in zip(ends, grid.coords.tolist(), ends.tolist(), strict=True):
        end += ((right + 1, y) in corners, (x, bottom + 1) in corners)
    return ends
