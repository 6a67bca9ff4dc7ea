"""Morphometry of the objects of a slide: area, number, size, shape and distances.

So that an importance can be read beside what the object is, and a classifier can be built that
anyone can check. The objects are those of ``objects.h5``, counted by its rule.
Axes: n objects.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ResolutionError
from xpath.objects.outline import fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.store.objects import ObjectTable

__all__ = [
    "LabelMorphometry",
    "MeasuredObject",
    "covered_pixels",
    "measure_objects",
    "morphometry",
]

LARGEST = 1 << 24
"""Pixels of the box around an object up to which its shape is measured: 4096 x 4096."""
SHAPE = (
    "perimeter_um", "length_um", "width_um", "circularity", "solidity", "eccentricity",
)  # fmt: skip
NAN = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredObject:
    """One object."""

    label: str
    """Label id."""
    x: float
    y: float
    """Its centre of mass, level-0 pixels."""
    area_um2: float
    perimeter_um: float
    """Crofton's formula, which a staircase of pixels does not make longer."""
    length_um: float
    width_um: float
    """Axes of the ellipse with its moments."""
    circularity: float
    """4 pi area / perimeter^2, at most 1: a disc has 1, a square by this perimeter 0.9
    (0.785 by its own), a line near 0."""
    solidity: float
    """Area over that of its convex hull."""
    eccentricity: float
    """Of the ellipse with its moments: 0 for a disc, near 1 for a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMorphometry:
    """All objects of one label on one slide.

    A label that is not there has area, share, count and density 0 and NaN for all that only an
    object has; one object has no neighbour and no spread.
    """

    slide_id: str
    label: str
    """Label id."""
    area_um2: float
    """Under the masks of the label, what is too small for an object included."""
    area_fraction: float
    """Of the area that was looked at, the union of all patches."""
    count: int
    """Objects; all figures below are over these."""
    density_mm2: float
    """Objects per square millimetre looked at."""
    area_mean_um2: float
    area_median_um2: float
    area_sd_um2: float
    """Sample standard deviation."""
    length_um: float
    """Mean, as are the next four; over objects whose shape could be measured."""
    width_um: float
    circularity: float
    solidity: float
    eccentricity: float
    nearest_um: float
    """Mean distance from an object's centre to that of the nearest of its label."""
    nearest_sd_um: float
    clark_evans: float
    """``nearest_um`` over what points strewn at random have, 0.5 / sqrt(density): below 1
    clustered, above 1 even. Not corrected for the border, so a little too large."""
    rule: str
    """The rule for one object, in words."""


def morphometry(table: ObjectTable, *, slide_id: str) -> list[LabelMorphometry]:
    """One row per label, in the order of the table's labels.

    Args:
        table: The slide's objects, with a resolution.
        slide_id: For the rows.

    Raises:
        ResolutionError: The slide has no resolution.
    """
    looked_at_um2 = covered_pixels(table.grid) * _um(table) ** 2
    areas_um2 = (table.label_pixels * table.um_per_pixel**2).tolist()
    return [
        _row(table, label, area_um2, looked_at_um2, slide_id)
        for label, area_um2 in zip(table.labels, areas_um2, strict=True)
    ]


def measure_objects(
    table: ObjectTable, labels: Sequence[str] | None = None
) -> list[MeasuredObject]:
    """Every object of some labels, in the order of the labels.

    The shape of an object in a box of more than 4096 x 4096 mask pixels, such as a network of
    stroma, is NaN; its area and centre are there.

    Args:
        table: The slide's objects, with a resolution.
        labels: Label ids; by default all.

    Raises:
        DataError: A label that was not segmented.
        ResolutionError: The slide has no resolution.
    """
    _um(table)
    chosen = table.labels if labels is None else labels
    return [_measured(table, index) for label in chosen for index in table.of(label).tolist()]


def _um(table: ObjectTable) -> float:
    """Microns per level-0 pixel."""
    if table.grid.slide_mpp is None:
        raise ResolutionError("the slide has no resolution; segment it again with --mpp")
    return table.grid.slide_mpp


def covered_pixels(grid: PatchGrid) -> float:
    """Level-0 pixels in the union of all patches."""
    corners = np.unique(grid.coords, axis=0)
    side = grid.footprint
    xs = np.unique(np.concatenate([corners[:, 0], corners[:, 0] + side]))
    ys = np.unique(np.concatenate([corners[:, 1], corners[:, 1] + side]))
    area = 0.0
    for low, high in itertools.pairwise(ys):  # strip by strip
        here = corners[(corners[:, 1] <= low) & (corners[:, 1] + side >= high), 0]
        starts, stops = np.searchsorted(xs, here), np.searchsorted(xs, here + side)
        steps = np.bincount(starts, minlength=len(xs)) - np.bincount(stops, minlength=len(xs))
        covered = np.cumsum(steps)[:-1] > 0
        area += float((np.diff(xs) * covered).sum() * (high - low))
    return area


def _row(
    table: ObjectTable, label: str, area_um2: float, looked_at_um2: float, slide_id: str
) -> LabelMorphometry:
    objects = measure_objects(table, [label])
    areas = np.array([each.area_um2 for each in objects])
    near = _nearest(table.centres[table.of(label)]) * _um(table)
    expected = 0.5 / math.sqrt(len(objects) / looked_at_um2) if objects else NAN
    return LabelMorphometry(
        slide_id=slide_id,
        label=label,
        area_um2=area_um2,
        area_fraction=area_um2 / looked_at_um2,
        count=len(objects),
        density_mm2=len(objects) / looked_at_um2 * 1e6,
        area_mean_um2=_mean(areas),
        area_median_um2=float(np.median(areas)) if len(areas) else NAN,
        area_sd_um2=float(areas.std(ddof=1)) if len(areas) > 1 else NAN,
        **{
            name: _mean(np.array([getattr(each, name) for each in objects]))
            for name in SHAPE
            if name != "perimeter_um"
        },
        nearest_um=_mean(near),
        nearest_sd_um=float(near.std(ddof=1)) if len(near) > 1 else NAN,
        clark_evans=_mean(near) / expected,
        rule=table.rule,
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the finite values, NaN without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else NAN


def _nearest(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each centre to the nearest other one, empty with fewer than two."""
    from scipy.spatial import KDTree

    if len(centres) < 2:
        return np.zeros(0)
    return np.asarray(KDTree(centres).query(centres, k=2)[0][:, 1])


def _measured(table: ObjectTable, index: int) -> MeasuredObject:
    um = table.um_per_pixel
    x, y = table.centres[index].tolist()
    return MeasuredObject(
        label=table.labels[table.label[index]],
        x=x,
        y=y,
        area_um2=float(table.pixels[index]) * um**2,
        **_shape(table.canvas_rings(index), um),
    )


def _shape(rings: Sequence[NDArray[np.int32]], um: float) -> dict[str, float]:
    """Shape of an object, drawn from its rings, or NaN where its picture would be too large."""
    import cv2
    from skimage.measure import perimeter_crofton
    from skimage.morphology import convex_hull_image

    corner = rings[0].min(axis=0)
    width, height = np.ptp(rings[0], axis=0).tolist()
    if width * height > LARGEST:
        return dict.fromkeys(SHAPE, NAN)
    mask = np.ascontiguousarray(fill([ring - corner for ring in rings], (height, width)))
    perimeter, moments = float(perimeter_crofton(mask)), cv2.moments(mask.view(np.uint8))
    spread = np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]])
    # the ellipse with these second moments, as in regionprops, which takes twice as long
    area = moments["m00"]
    narrow, wide = np.linalg.eigvalsh(spread / area).clip(0).tolist()
    return {
        "perimeter_um": perimeter * um,
        "length_um": 4 * math.sqrt(wide) * um,
        "width_um": 4 * math.sqrt(narrow) * um,
        "circularity": min(1.0, 4 * math.pi * area / perimeter**2),
        "solidity": area / int(convex_hull_image(mask).sum()),
        "eccentricity": math.sqrt(1 - narrow / wide) if wide else 0.0,
    }
