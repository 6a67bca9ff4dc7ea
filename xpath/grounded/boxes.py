"""Boxes drawn on an image, by which the grounded model is asked for a region.

Axes: H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["draw_box", "region_box", "region_boxes"]

COLOUR, THICKNESS = (0, 255, 0), 2
SMALL = 400
"""A box of no more pixels is asked for only if there is no larger one."""


def draw_box(image: NDArray[np.uint8], box: Sequence[int]) -> NDArray[np.uint8]:
    """A copy of an RGB image ``(H, W, 3)`` with a green box, as the published code draws it.

    Args:
        image: uint8.
        box: x, y, width, height in pixels.

    Raises:
        DataError: The box is empty or not within the image.
    """
    import cv2

    x, y, width, height = (int(value) for value in box)
    if min(width, height) < 1 or min(x, y) < 0 or _beyond(image, x + width, y + height):
        raise DataError(
            f"a box is x, y, width, height within the image of {image.shape[1]} x"
            f" {image.shape[0]} pixels, got {tuple(box)}"
        )
    drawn = np.ascontiguousarray(image).copy()
    cv2.rectangle(drawn, (x, y), (x + width, y + height), COLOUR, THICKNESS)
    return drawn


def region_boxes(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Tight boxes x, y, width, height of the connected regions of a mask ``(H, W)``.

    Regions touch at corners too; holes count as part of theirs.
    """
    import cv2

    flat = np.ascontiguousarray(mask, np.uint8)
    contours, _ = cv2.findContours(flat, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = (cv2.boundingRect(contour) for contour in contours)
    return [(int(x), int(y), int(width), int(height)) for x, y, width, height in boxes]


def region_box(
    mask: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """The box of one region, drawn at random among those of more than 400 pixels, else among all.

    None if the mask is empty.
    """
    boxes = region_boxes(mask)
    large = [box for box in boxes if box[2] * box[3] > SMALL]
    if not boxes:
        return None
    return (large or boxes)[rng.integers(len(large or boxes))]


def _beyond(image: NDArray[np.uint8], right: int, bottom: int) -> bool:
    return bool(right > image.shape[1] or bottom > image.shape[0])
