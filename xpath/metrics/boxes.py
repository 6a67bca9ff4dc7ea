"""Boxes an annotator draws for a model that is prompted with boxes, and what they cost.

The paper (section 2.3.2, Table 11) compares a text prompt with a union box, the tight box of
everything, and with instance boxes, one around each instance. A box is drawn with two clicks.

Axes: N boxes, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.metrics.instances import MIN_PIXELS, find_instances
from xpath.metrics.overlap import dice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CLICKS_PER_BOX", "BoxCost", "box_cost", "fill_boxes", "instance_boxes"]

CLICKS_PER_BOX = 2
"""Two opposite corners."""


class BoxCost(NamedTuple):
    """Cost of boxes for one mask, and how good they are if taken for the mask themselves."""

    union_boxes: int
    """1, or 0 for an empty mask."""
    instance_boxes: int
    union_clicks: int
    instance_clicks: int
    union_dice: float
    """Dice of the filled union box."""
    instance_dice: float
    """Dice of the filled instance boxes ("Instance Box" in Table 11)."""


def instance_boxes(mask: NDArray[np.bool_], *, min_pixels: int = MIN_PIXELS) -> NDArray[np.int64]:
    """Tight boxes ``(N, 4)`` of the instances of a mask. Smaller regions get none.

    Raises:
        DataError: A mask that is not boolean.
        ShapeError: A mask that is not two-dimensional.
    """
    return find_instances(mask, min_pixels=min_pixels).boxes


def fill_boxes(boxes: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask ``(H, W)`` that boxes ``(N, 4)`` cover."""
    filled = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        filled[top:bottom, left:right] = True
    return filled


def box_cost(truth: NDArray[np.bool_], *, min_pixels: int = MIN_PIXELS) -> BoxCost:
    """Number of boxes and clicks an annotator has to give for a mask.

    If all its regions are smaller than ``min_pixels``, each needs its box all the same.

    Raises:
        DataError: A mask that is not boolean.
        ShapeError: A mask that is not two-dimensional.
    """
    each = instance_boxes(truth, min_pixels=min_pixels)
    if not len(each):
        each = instance_boxes(truth, min_pixels=1)
    one = _union(each)
    return BoxCost(
        len(one),
        len(each),
        CLICKS_PER_BOX * len(one),
        CLICKS_PER_BOX * len(each),
        dice(fill_boxes(one, truth.shape), truth),
        dice(fill_boxes(each, truth.shape), truth),
    )


def _union(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(boxes):
        return boxes
    return np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))[None]
