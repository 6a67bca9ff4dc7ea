"""Numbers per patch or per object, painted on an overview of the slide.

Areas are counted exactly, however the pixels of patches, masks and overview lie to each other, so
no nucleus is lost on the way down. Axes: N patches, L object classes, h w pixels of the overview.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from xpath.objects.area import overlaps
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xpath.geometry import Box, PatchGrid, Size
    from xpath.store.masks import SlideMasks

__all__ = ["Measure", "Overlap", "object_map", "object_shares", "patch_map", "patch_object_map"]

SPECK = 1e-6
"""Shares of a pixel below this are rounding."""

Overlap = Literal["sum", "max_abs"]
"""Value where objects overlap: ``sum``, as in the logit, or ``max_abs``, the strongest alone."""

Measure = Literal["total", "density"]
"""``total``: every pixel of an object has its value (paper, Eq. 17), so large objects look
important. ``density``: the value is spread over the object's area, so that the map sums to it."""


class _Window(NamedTuple):
    """The overview pixels under a patch."""

    rows: slice
    columns: slice
    down: NDArray[np.float64]
    """``(rows, pixels of the patch)`` lengths in overview pixels."""
    across: NDArray[np.float64]
    """``(columns, pixels of the patch)``."""


def patch_map(scores: NDArray[np.floating], grid: PatchGrid, size: Size) -> NDArray[np.float64]:
    """The overview ``(h, w)`` painted with patch scores (paper, Eq. 15), NaN outside of patches.

    Where several patches share a pixel, their scores are averaged by area.
    """
    check_shape("scores", scores, "N", N=len(grid))
    total, area = np.zeros((size.height, size.width)), np.zeros((size.height, size.width))
    for score, box in zip(scores, grid.boxes(), strict=True):
        rows, columns, down, across = _window(box, grid, size, 1)
        covered = down @ across.T
        total[rows, columns] += score * covered
        area[rows, columns] += covered
    return np.where(area > SPECK, total / np.maximum(area, SPECK), np.nan)


def object_shares(masks: SlideMasks, size: Size) -> NDArray[np.float32]:
    """Share of every overview pixel that each object covers, ``(L, h, w)`` in 0..1.

    Where patches overlap, their masks are averaged.
    """
    shares = np.zeros((len(masks.labels), size.height, size.width), np.float32)
    for patch, window, small in _painted(masks, size):
        present = np.flatnonzero(masks.area[patch])
        shares[present, window.rows, window.columns] += small
    shares /= _times_covered(masks.grid, size)
    return np.minimum(shares, 1)


def object_map(
    values: NDArray[np.floating],
    shares: NDArray[np.float32],
    *,
    overlap: Overlap = "sum",
    measure: Measure = "total",
) -> NDArray[np.float64]:
    """The overview ``(h, w)`` painted with object values (paper, Eq. 17), NaN outside of objects.

    A pixel that an object covers in part has that part of its value.

    Args:
        values: ``(L,)``, such as ``ObjectActivation.activation``.
        shares: ``(L, h, w)`` from ``object_shares``.
        overlap: What counts where objects overlap (a nucleus in a tumour).
        measure: Whether an object's value stands on every pixel of it, or is spread over it.
    """
    check_shape("values", values, "L", L=len(shares))
    painted = np.zeros(shares.shape[1:])
    for value, share in zip(values, shares, strict=True):
        area = float(share.sum(dtype=np.float64)) if measure == "density" else 1.0
        part = share * (float(value) / (area or 1.0))
        painted = _combined(painted, part, overlap)
    return np.where(shares.max(axis=0, initial=0) > SPECK, painted, np.nan)


def patch_object_map(
    values: NDArray[np.floating],
    masks: SlideMasks,
    size: Size,
    *,
    overlap: Overlap = "sum",
    measure: Measure = "total",
) -> NDArray[np.float64]:
    """The overview ``(h, w)`` painted with each object's value in its patch, NaN outside.

    Eq. 17 gives all objects of a class one colour; this shows which of them matter. As ``density``
    the map sums to all values of objects that have a mask.

    Args:
        values: ``(N, L)``, such as ``ObjectActivation.patch_contribution`` without "other".
        masks: The object masks.
        size: Of the overview.
        overlap: What counts where objects overlap (a nucleus in a tumour).
        measure: Whether a value stands on every pixel of the object, or is spread over it.
    """
    check_shape("values", values, "N L", N=len(masks.grid), L=len(masks.labels))
    painted = np.zeros((size.height, size.width))
    covered = np.zeros(painted.shape, bool)
    for patch, (rows, columns, _, _), small in _painted(masks, size):
        here = np.zeros(small.shape[1:])
        for value, share in zip(values[patch][masks.area[patch] > 0], small, strict=True):
            area = float(share.sum()) if measure == "density" else 1.0
            here = _combined(here, share * (float(value) / (area or 1.0)), overlap)
        painted[rows, columns] += here
        covered[rows, columns] |= small.max(axis=0) > SPECK
    if measure == "total":
        painted /= _times_covered(masks.grid, size)
    return np.where(covered, painted, np.nan)


def _combined(
    painted: NDArray[np.float64], part: NDArray[np.float64], overlap: Overlap
) -> NDArray[np.float64]:
    if overlap == "sum":
        return painted + part
    return np.where(np.abs(part) > np.abs(painted), part, painted)


def _painted(masks: SlideMasks, size: Size) -> Iterator[tuple[int, _Window, NDArray[np.float64]]]:
    """Patches that hold any object, and the shares ``(objects there, rows, columns)`` of these."""
    for patch in np.flatnonzero(masks.area.any(axis=1)):
        window = _window(masks.grid.box(int(patch)), masks.grid, size, masks.size)
        present = masks.read(int(patch))[masks.area[patch] > 0].astype(np.float64)
        yield int(patch), window, window.down @ present @ window.across.T


def _times_covered(grid: PatchGrid, size: Size) -> NDArray[np.float32]:
    """How many patches lie on each overview pixel on average, at least 1."""
    covered = np.zeros((size.height, size.width), np.float32)
    for box in grid.boxes():
        rows, columns, down, across = _window(box, grid, size, 1)
        covered[rows, columns] += down @ across.T
    return np.maximum(covered, 1)


def _window(box: Box, grid: PatchGrid, size: Size, pixels: int) -> _Window:
    """The overview pixels that a box of so many pixels a side touches."""
    down = size.height / grid.slide_size.height
    across = size.width / grid.slide_size.width
    rows, vertical = _axis(box.y * down, box.height * down, size.height, pixels)
    columns, horizontal = _axis(box.x * across, box.width * across, size.width, pixels)
    return _Window(rows, columns, vertical, horizontal)


def _axis(
    start: float, length: float, limit: int, pixels: int
) -> tuple[slice, NDArray[np.float64]]:
    """Overview pixels ``start`` to ``start + length``, and how much of each a pixel covers."""
    first = min(max(0, int(np.floor(start))), limit)
    last = max(first, min(limit, int(np.ceil(start + length))))
    edges = (np.arange(first, last + 1) - start) * (pixels / length)
    return slice(first, last), overlaps(edges, pixels) * (length / pixels)
