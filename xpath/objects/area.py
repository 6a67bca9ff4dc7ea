"""Overlap of one pixel grid with another, along one axis.

Axes: m intervals, n pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["overlaps"]


def overlaps(edges: NDArray[np.floating], pixels: int) -> NDArray[np.float64]:
    """Length of every pixel that lies between neighbouring edges, ``(m, n)`` in pixels.

    Summing an image with these weights along both axes counts areas exactly, also where the grids
    do not divide each other.

    Args:
        edges: ``(m + 1,)`` increasing, in pixels; pixel k reaches from k to k + 1.
        pixels: Number of pixels n.
    """
    left = np.arange(pixels)
    reach = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return np.asarray(np.maximum(reach, 0.0))
