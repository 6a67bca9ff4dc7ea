"""The mean shape a segmentor gives to the objects of one prompt, place and number left out.

After BiomedParse (Zhao et al. 2024, Methods, "Attention map conditioned on the textual
description"). It does not say in which order maps are added, what lies beyond their border, or how
sizes are made equal: here they come in the order given, zero beyond the border, and on one canvas
with their proportions kept.

Axes: n maps, H W pixels of a map, S side of the canvas, M objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["ShapeMap", "object_crops", "on_canvas", "shape_map"]


class ShapeMap(NamedTuple):
    """A mean map and how far each map was moved."""

    map: NDArray[np.float64]
    """``(H, W)`` in 0..1."""
    shifts: NDArray[np.int64]
    """``(n, 2)`` rows and columns each map was moved by; 0, 0 for the first."""


def shape_map(maps: Sequence[NDArray[np.floating]]) -> ShapeMap:
    """Mean of probability maps, each moved to where it correlates best with those before it.

    Maps without anything in them are left out. Of equally good moves the first, from the top left,
    is taken.

    Args:
        maps: n maps ``(H, W)`` of one size, values 0..1.

    Raises:
        DataError: No map has anything in it, or values are not 0..1.
        ShapeError: Maps of different sizes.
    """
    from scipy.signal import correlate

    filled = [np.asarray(each, np.float64) for each in maps if np.asarray(each).any()]
    if not filled:
        raise DataError("a shape map needs a map that is not empty")
    sizes = check_shape("maps[0]", filled[0], "H W")
    total = np.zeros((sizes["H"], sizes["W"]))
    shifts = np.zeros((len(filled), 2), np.int64)
    for number, each in enumerate(filled):
        check_shape(f"maps[{number}]", each, "H W", **sizes)
        if not (each.min() >= 0 and each.max() <= 1):
            raise DataError(f"maps[{number}] must be probabilities, 0..1")
        if number:
            likeness = correlate(total, each, mode="full", method="fft")
            shifts[number] = np.array(_first_best(likeness)) - (sizes["H"] - 1, sizes["W"] - 1)
        total += _moved(each, *shifts[number].tolist())
    return ShapeMap(total / len(filled), shifts)


def on_canvas(image: NDArray[np.floating], side: int) -> NDArray[np.float64]:
    """A map ``(H, W)`` resized to fit a square ``(S, S)``, proportions kept, zeros around it.

    Raises:
        ConfigError: A side below 1.
        ShapeError: A map that is none.
    """
    import cv2

    if side < 1:
        raise ConfigError(f"side must be at least 1 pixel, got {side}")
    sizes = check_shape("image", image, "H W")
    scale = side / max(sizes["H"], sizes["W"])
    height, width = (max(1, round(sizes[axis] * scale)) for axis in "HW")
    small = cv2.resize(
        np.asarray(image, np.float64), (width, height), interpolation=cv2.INTER_LINEAR
    )
    canvas = np.zeros((side, side))
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = small
    return canvas


def object_crops(
    probability: NDArray[np.floating], instances: Iterable[NDArray[np.bool_]], *, margin: int = 4
) -> Iterator[NDArray[np.float64]]:
    """A map per object: its surroundings, with the probability of its own pixels only.

    For nuclei and cells, of which an image has so many that together they have no shape.

    Args:
        probability: ``(H, W)``.
        instances: Masks ``(H, W)`` of single objects; empty ones are passed over.
        margin: Pixels of surroundings on every side, within the image.
    """
    for mask in instances:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size:
            window = tuple(
                slice(max(0, int(line[0]) - margin), int(line[-1]) + 1 + margin)
                for line in (rows, columns)
            )
            yield np.where(mask[window], probability[window], 0).astype(np.float64)


def _first_best(values: NDArray[np.float64]) -> tuple[int, int]:
    """Index of the highest value. Those within rounding of it count as equal."""
    best = values.max()
    ties = values >= best - 1e-9 * max(1.0, abs(best))
    row, column = np.unravel_index(int(ties.argmax()), values.shape)
    return int(row), int(column)


def _moved(image: NDArray[np.float64], down: int, right: int) -> NDArray[np.float64]:
    """An image moved by whole pixels, zeros where it came from."""
    height, width = image.shape
    moved = np.zeros_like(image)
    moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = image[
        max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
    ]
    return moved
