"""How far two masks agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["dice", "iou"]


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Overlap of two boolean masks of one shape, 0 to 1. Two empty masks agree perfectly (1).

    Raises:
        DataError: Masks that are not boolean.
        ShapeError: Masks of different shapes.
    """
    both = _common(mask, truth)
    total = int(mask.sum()) + int(truth.sum())
    return 2 * both / total if total else 1.0


def iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two boolean masks, 0 to 1. Two empty masks agree perfectly (1).

    Raises:
        DataError: Masks that are not boolean.
        ShapeError: Masks of different shapes.
    """
    both = _common(mask, truth)
    union = int(mask.sum()) + int(truth.sum()) - both
    return both / union if union else 1.0


def _common(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> int:
    if mask.shape != truth.shape:
        raise ShapeError(f"masks must have one shape, got {mask.shape} and {truth.shape}")
    if mask.dtype != np.bool_ or truth.dtype != np.bool_:
        raise DataError(
            f"masks must be boolean, got {mask.dtype} and {truth.dtype}; compare with a threshold"
        )
    return int((mask & truth).sum())
