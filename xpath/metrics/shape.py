"""How hard an object is to segment: its shape, size, number and spread.

The first four are PathSegmentor's (section 4.5, equations 19 to 21), the last three BiomedParse's
("Details of experiments on irregular-shaped objects"). Of an empty mask none is defined: NaN.

Axes: N instances, H W pixels. Lengths are pixels of the mask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.metrics.instances import MIN_PIXELS, Instances, find_instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ShapeTraits",
    "boundary_length",
    "box_ratio",
    "convex_ratio",
    "dispersion",
    "inertia_ratio",
    "instance_ratio",
    "irregularity",
    "shape_traits",
]


class ShapeTraits(NamedTuple):
    """Traits of a mask that make it hard to segment, NaN where one is not defined."""

    irregularity: float
    instance_ratio: float
    instance_count: int
    """8-connected regions of 36 pixels or more."""
    dispersion: float
    box_ratio: float
    convex_ratio: float
    inertia_ratio: float


def shape_traits(mask: NDArray[np.bool_], *, min_pixels: int = MIN_PIXELS) -> ShapeTraits:
    """All traits of a mask.

    Args:
        mask: ``(H, W)``, True in the object.
        min_pixels: Smaller regions are no instances.

    Raises:
        DataError: A mask that is not boolean.
        ShapeError: A mask that is not two-dimensional.
    """
    instances = find_instances(mask, min_pixels=min_pixels)
    return ShapeTraits(
        irregularity(mask),
        instance_ratio(instances),
        len(instances.area),
        dispersion(instances),
        box_ratio(mask),
        convex_ratio(mask),
        inertia_ratio(mask),
    )


def boundary_length(mask: NDArray[np.bool_]) -> float:
    """Length of the chains of pixels along all edges, holes included: steps of 1 and sqrt 2.

    The image's own edge counts as an edge.
    """
    import cv2

    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return float(sum(cv2.arcLength(outline, closed=True) for outline in outlines))


def irregularity(mask: NDArray[np.bool_]) -> float:
    """How far a mask is from a disc: ``1 - 4 pi area / perimeter^2`` (equation 19), 0 to 1.

    The paper words the perimeter as the number of pixels along the boundary. Such a count makes a
    disc "rounder than round" (-0.23) and depends on orientation, while the paper's Table 8 starts
    at 0.10, which is what chains with diagonal steps of sqrt 2 give for a disc; so those are
    taken. Values below 0, possible for specks only, are given as 0. Full images have 0.21.

    Args:
        mask: ``(H, W)``, one or more objects; the more objects, the longer the boundary.
    """
    area = int(mask.sum())
    if not area:
        return math.nan
    length = boundary_length(mask)
    return max(0.0, 1 - 4 * math.pi * area / length**2) if length else 0.0


def instance_ratio(instances: Instances) -> float:
    """Mean share of the image that one instance covers (equation 20), 0 to 1."""
    if not len(instances.area):
        return math.nan
    return float(instances.area.mean()) / instances.labels.size


def dispersion(instances: Instances) -> float:
    """Largest distance between centroids of two instances (equation 21), 0 if there is one."""
    if not len(instances.centroid):
        return math.nan
    farthest = 0.0
    for number, centre in enumerate(instances.centroid):
        step = instances.centroid[number:] - centre
        farthest = max(farthest, float((step * step).sum(axis=1).max()))
    return math.sqrt(farthest)


def box_ratio(mask: NDArray[np.bool_]) -> float:
    """Share of the tight box that the mask fills (BiomedParse), 0 to 1."""
    tight = _tight(mask)
    return float(tight.mean()) if tight.size else math.nan


def convex_ratio(mask: NDArray[np.bool_]) -> float:
    """Share of the convex hull that the mask fills (BiomedParse), 0 to 1. "solidity" elsewhere.

    A pixel belongs to the hull if its centre lies in the hull of the middles of all pixel sides,
    as in scikit-image.
    """
    import cv2

    tight = _tight(mask)
    if not tight.size:
        return math.nan
    rows, columns = np.nonzero(tight & ~_inside(tight))
    twice = 2 * np.stack((columns, rows), axis=1)  # sides then lie on whole numbers
    sides = np.concatenate([twice + step for step in ((1, 0), (-1, 0), (0, 1), (0, -1))])
    corners = cv2.convexHull(sides.astype(np.int32))[:, 0].astype(np.float64)
    step = np.roll(corners, -1, axis=0) - corners
    sloped = step[:, 1] != 0
    start, step = corners[sloped], step[sloped]
    heights = 2.0 * np.arange(tight.shape[0])
    crossing = start[:, :1] + (heights - start[:, 1:]) * (step[:, :1] / step[:, 1:])
    rising = step[:, 1] > 0  # one flank of the hull goes down the image, the other up
    low, high = crossing[rising].max(axis=0), crossing[~rising].min(axis=0)
    if (low > high).any():  # the hull is wound the other way round
        low, high = crossing[~rising].max(axis=0), crossing[rising].min(axis=0)
    hull = np.floor(high / 2 + 1e-9) - np.ceil(low / 2 - 1e-9) + 1
    return float(tight.sum() / hull.sum())


def inertia_ratio(mask: NDArray[np.bool_]) -> float:
    """Inverse rotational inertia ``area^2 / (2 pi inertia)`` (BiomedParse): 1 for a disc, to 0.

    Inertia is the sum of squared distances of pixel centres to the centroid; specks, whose pixels
    are no points, are given at most 1.
    """
    rows, columns = np.nonzero(mask)
    area = len(rows)
    if not area:
        return math.nan
    inertia = area * (float(rows.var()) + float(columns.var()))
    return min(1.0, area**2 / (2 * math.pi * inertia)) if inertia else 1.0


def _inside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose four neighbours belong to a mask."""
    padded = np.pad(mask, 1)
    return np.asarray(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def _tight(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask within its tight box, without size if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return mask[:0, :0]
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
