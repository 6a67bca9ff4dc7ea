"""Numbers per patch or per object, painted on an overview of the slide.

Axes: N patches, L object kinds, h w pixels of the overview.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Box, PatchGrid, Size
    from xpath.store.masks import SlideMasks

__all__ = ["object_map", "object_shares", "patch_map"]


def patch_map(scores: NDArray[np.floating], grid: PatchGrid, size: Size) -> NDArray[np.float64]:
    """Every patch in its score (paper, Eq. 15), ``(h, w)``; NaN where there is no patch.

    Where patches overlap, their scores are averaged.
    """
    check_shape("scores", scores, "N", N=len(grid))
    total, count = np.zeros((size.height, size.width)), np.zeros((size.height, size.width))
    for score, box in zip(scores, grid.boxes(), strict=True):
        window = _window(box, grid, size)
        total[window] += score
        count[window] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def object_shares(masks: SlideMasks, size: Size) -> NDArray[np.float32]:
    """How much of every overview pixel each object covers, ``(L, h, w)`` in 0..1."""
    import cv2

    shares = np.zeros((len(masks.labels), size.height, size.width), np.float32)
    for patch, box in enumerate(masks.grid.boxes()):
        present = np.flatnonzero(masks.area[patch])
        rows, columns = window = _window(box, masks.grid, size)
        shape = (columns.stop - columns.start, rows.stop - rows.start)
        if not len(present) or min(shape) < 1:
            continue
        found = masks.read(patch)[present].astype(np.float32)
        for label, mask in zip(present, found, strict=True):
            small = cv2.resize(mask, shape, interpolation=cv2.INTER_AREA)
            shares[(label, *window)] = np.maximum(shares[(label, *window)], small)
    return shares


def object_map(values: NDArray[np.floating], shares: NDArray[np.float32]) -> NDArray[np.float64]:
    """Every object in its value (paper, Eq. 17), ``(h, w)``; NaN where there is no object.

    Where objects overlap (a nucleus in a tumour) their values add up, as they do in the logit.

    Args:
        values: ``(L,)``, such as ``ObjectActivation.activation``.
        shares: ``(L, h, w)`` from ``object_shares``.
    """
    check_shape("values", values, "L", L=len(shares))
    painted = np.tensordot(np.asarray(values, np.float64), shares, axes=1)
    return np.where(shares.max(axis=0) > 0.25, painted, np.nan)


def _window(box: Box, grid: PatchGrid, size: Size) -> tuple[slice, slice]:
    """The overview pixels of a box; neighbouring boxes meet without gap or overlap."""
    across = size.width / grid.slide_size.width
    down = size.height / grid.slide_size.height
    return (
        slice(max(0, round(box.y * down)), min(size.height, round(box.bottom * down))),
        slice(max(0, round(box.x * across)), min(size.width, round(box.right * across))),
    )
