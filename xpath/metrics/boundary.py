"""How far apart the edges of two masks are.

The edge of a mask is its pixels that touch the outside by a side; the image's edge is outside.
Distances are between pixel centres, in pixels. Axes: H W pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EdgeDistances",
    "edge",
    "edge_distances",
    "hausdorff",
    "mean_surface_distance",
    "surface_dice",
]


class EdgeDistances(NamedTuple):
    """Distances from every pixel of one edge to the nearest of the other, both ways."""

    to_truth: NDArray[np.float64]
    """One per pixel of the mask's edge; infinite if the truth is empty."""
    to_mask: NDArray[np.float64]
    """One per pixel of the truth's edge; infinite if the mask is empty."""


def edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask ``(H, W)`` with a side to its outside."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)


def edge_distances(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> EdgeDistances:
    """Distances between the edges of two masks ``(H, W)``.

    Raises:
        DataError: Masks that are not boolean.
        ShapeError: Masks of different shapes, or not two-dimensional.
    """
    if mask.shape != truth.shape or mask.ndim != 2:
        raise ShapeError(f"masks must have one shape (H, W), got {mask.shape} and {truth.shape}")
    if mask.dtype != np.bool_ or truth.dtype != np.bool_:
        raise DataError(
            f"masks must be boolean, got {mask.dtype} and {truth.dtype}; compare with a threshold"
        )
    first, second = edge(mask), edge(truth)
    return EdgeDistances(_distances(first, second), _distances(second, first))


def hausdorff(distances: EdgeDistances, *, percentile: float = 95) -> float:
    """Hausdorff distance in pixels: the larger of both directions' percentiles.

    Args:
        distances: From ``edge_distances``.
        percentile: 95 forgives a few far pixels; 100 is the Hausdorff distance proper.

    Returns:
        0 if both masks are empty, infinity if one is.
    """
    ways = [way for way in distances if len(way)]
    if not all(np.isfinite(way).all() for way in ways):
        return math.inf
    return max((float(np.percentile(way, percentile)) for way in ways), default=0.0)


def surface_dice(distances: EdgeDistances, *, tolerance: float) -> float:
    """Normalised surface Dice: share of both edges within a tolerance of the other, 0 to 1.

    Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and neck
    anatomy", section "surface DSC". Two empty masks agree perfectly (1).

    Args:
        distances: From ``edge_distances``.
        tolerance: Pixels.
    """
    both = np.concatenate(distances)
    return float((both <= tolerance).mean()) if len(both) else 1.0


def mean_surface_distance(distances: EdgeDistances) -> float:
    """Average symmetric surface distance (ASSD) in pixels: the mean over both edges.

    Returns:
        0 if both masks are empty, infinity if one is.
    """
    both = np.concatenate(distances)
    return float(both.mean()) if len(both) else 0.0


def _distances(start: NDArray[np.bool_], goal: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of every pixel of ``start`` to the nearest of ``goal``."""
    import cv2

    if not goal.any():
        return np.full(int(start.sum()), math.inf)
    away = cv2.distanceTransform((~goal).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away[start], np.float64)
