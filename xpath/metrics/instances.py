"""Instances: single objects within a mask, and how well two sets of them agree.

Axes: N instances, H W pixels. Instance maps hold 0 for background and any other number for an
instance; numbers need not be consecutive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MIN_PIXELS",
    "Instances",
    "PanopticQuality",
    "aggregated_jaccard",
    "find_instances",
    "panoptic_quality",
]

MIN_PIXELS = 36
"""Smaller regions are annotation noise (PathSegmentor paper, section 4.5)."""


class Instances(NamedTuple):
    """The connected regions of a mask, in pixels of its frame."""

    labels: NDArray[np.int32]
    """``(H, W)`` 0 outside, 1 to N inside."""
    area: NDArray[np.int64]
    """``(N,)`` pixels."""
    boxes: NDArray[np.int64]
    """``(N, 4)`` left, top, right, bottom; right and bottom lie just outside."""
    centroid: NDArray[np.float64]
    """``(N, 2)`` x, y of the mean pixel centre."""


class PanopticQuality(NamedTuple):
    """Agreement of instances, 1 being perfect."""

    pq: float
    """``detection * segmentation``."""
    detection: float
    """F1 of finding instances."""
    segmentation: float
    """Mean IoU of matched instances; 0 if none is matched."""
    matched: int
    missed: int
    """True instances without a match."""
    invented: int
    """Predicted instances without a match."""


def find_instances(mask: NDArray[np.bool_], *, min_pixels: int = MIN_PIXELS) -> Instances:
    """The 8-connected regions of a mask, numbered from top to bottom (paper, section 4.5, 3).

    Args:
        mask: ``(H, W)``, True in the object.
        min_pixels: Smaller regions are left out; 1 keeps all.

    Raises:
        DataError: A mask that is not boolean.
        ShapeError: A mask that is not two-dimensional.
    """
    import cv2

    if mask.ndim != 2:
        raise ShapeError(f"mask must be (H, W), got {mask.shape}")
    if mask.dtype != np.bool_:
        raise DataError(f"mask must be boolean, got {mask.dtype}; compare with a threshold")
    if not mask.size:
        raise ShapeError(f"mask must have pixels, got {mask.shape}")
    count, labels, stats, centroid = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    stats = np.asarray(stats, np.int64)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_pixels
    keep[0] = False  # the background
    number = np.zeros(count, np.int32)
    number[keep] = np.arange(1, int(keep.sum()) + 1)
    left, top, width, height, area = stats[keep].T
    boxes = np.stack((left, top, left + width, top + height), axis=1)
    return Instances(number[labels], area, boxes, np.asarray(centroid[keep], np.float64))


def aggregated_jaccard(predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """Aggregated Jaccard index, 0 to 1 (Kumar et al., TMI 2017, algorithm 1).

    Each true instance meets the prediction of largest IoU; predictions that nobody met count in
    the union. Two empty maps agree perfectly (1).

    Args:
        predicted: ``(H, W)`` instance map.
        truth: ``(H, W)`` instance map.

    Raises:
        DataError: Maps that are not integers, or negative.
        ShapeError: Maps of different shapes.
    """
    common, size_predicted, size_true = _overlaps(predicted, truth)
    if not len(size_true) or not len(size_predicted):
        return float(len(size_true) == len(size_predicted))
    union = size_true[:, None] + size_predicted[None] - common
    best = (common / union).argmax(axis=1)
    rows = np.arange(len(size_true))
    met = common[rows, best] > 0
    inside = int(common[rows, best][met].sum())
    outside = int(union[rows, best][met].sum()) + int(size_true[~met].sum())
    unused = np.ones(len(size_predicted), bool)
    unused[best[met]] = False
    return inside / (outside + int(size_predicted[unused].sum()))


def panoptic_quality(predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> PanopticQuality:
    """Panoptic quality of one class (Kirillov et al., CVPR 2019, equation 1).

    Instances match if their IoU is above one half, which no two can be with the same partner. Two
    empty maps agree perfectly (1).

    Args:
        predicted: ``(H, W)`` instance map.
        truth: ``(H, W)`` instance map.

    Raises:
        DataError: Maps that are not integers, or negative.
        ShapeError: Maps of different shapes.
    """
    common, size_predicted, size_true = _overlaps(predicted, truth)
    if not len(size_true) and not len(size_predicted):
        return PanopticQuality(1.0, 1.0, 1.0, 0, 0, 0)
    ratio = common / (size_true[:, None] + size_predicted[None] - common)
    ratios = ratio[ratio > 0.5]
    matched = len(ratios)
    missed, invented = len(size_true) - matched, len(size_predicted) - matched
    detection = matched / (matched + (missed + invented) / 2)
    segmentation = float(ratios.mean()) if matched else 0.0
    return PanopticQuality(
        detection * segmentation, detection, segmentation, matched, missed, invented
    )


def _overlaps(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Common pixels ``(true, predicted)``, pixels of the predicted, pixels of the true."""
    if predicted.shape != truth.shape:
        raise ShapeError(f"maps must have one shape, got {predicted.shape} and {truth.shape}")
    columns, rows = _consecutive(predicted), _consecutive(truth)
    wide, tall = int(columns.max(initial=0)) + 1, int(rows.max(initial=0)) + 1
    table = np.bincount(rows * wide + columns, minlength=wide * tall).reshape(tall, wide)
    return table[1:, 1:], table.sum(axis=0)[1:], table.sum(axis=1)[1:]


def _consecutive(ids: NDArray[np.integer]) -> NDArray[np.int64]:
    """Numbers 0 (background), 1, 2 ... of the pixels of an instance map."""
    if not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"instance maps must hold integers, got {ids.dtype}")
    flat = np.concatenate((np.zeros(1, np.int64), ids.ravel().astype(np.int64)))
    values, index = np.unique(flat, return_inverse=True)
    if values[0] < 0:
        raise DataError(f"instance numbers must be 0 or more, got {values[0]}")
    return np.asarray(index[1:], np.int64)
