"""What the objects of a slide look like: how much, how many, how large, of what shape, how close.

So that an importance can be read beside what the object is, and a classifier can be built that
anyone can check. An object is a piece of a mask whose pixels touch, corners included; pieces that
meet across the border of two patches, or lie in both where patches overlap, are one object.
Axes: N patches, H W pixels.
"""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import asdict, dataclass, fields
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import ConfigError, DataError, ResolutionError
from xpath.objects.mask_pieces import objects
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import PatchGrid
    from xpath.objects.mask_pieces import Piece
    from xpath.store.masks import SlideMasks

__all__ = ["KindMorphometry", "MeasuredObject", "measure_objects", "morphometry", "write_table"]

LARGEST = 1 << 24
"""Pixels of the box around an object up to which its shape is measured: 4096 x 4096."""
NAN = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredObject:
    """One object."""

    kind: str
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
class KindMorphometry:
    """All objects of one kind on one slide.

    A kind that is not there has area, share, count and density 0 and NaN for all that only an
    object has; one object has no neighbour and no spread.
    """

    slide_id: str
    kind: str
    area_um2: float
    """Under the masks of the kind, specks included."""
    area_fraction: float
    """Of the area that was looked at, the union of all patches."""
    count: int
    """Objects of ``min_area_um2`` at least; all figures below are over these."""
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
    """Mean distance from an object's centre to that of the nearest of its kind."""
    nearest_sd_um: float
    clark_evans: float
    """``nearest_um`` over what points strewn at random have, 0.5 / sqrt(density): below 1
    clustered, above 1 even. Not corrected for the border, so a little too large."""


def morphometry(
    masks: SlideMasks, *, slide_id: str, min_area_um2: float = 10.0
) -> list[KindMorphometry]:
    """One row per kind, in the order of the masks' labels.

    Args:
        masks: The slide's masks, with a resolution.
        slide_id: For the rows.
        min_area_um2: Smaller objects are specks: their area counts, they do not.

    Raises:
        ConfigError: A negative area.
        ResolutionError: The masks have no resolution.
    """
    mpp, looked_at = _mpp(masks), _area_of(masks.grid)
    rows = []
    for kind, (found, total) in _measured(masks, masks.labels, min_area_um2).items():
        rows.append(_row(slide_id, kind, found, total * mpp**2, looked_at, masks.grid))
    return rows


def measure_objects(
    masks: SlideMasks, kinds: Sequence[str] | None = None, *, min_area_um2: float = 10.0
) -> list[MeasuredObject]:
    """Every object of some kinds, in the order of the kinds.

    The shape of an object in a box of more than 4096 x 4096 mask pixels, such as a network of
    stroma, is NaN; its area and centre are there.

    Args:
        masks: The slide's masks, with a resolution.
        kinds: Labels; by default all.
        min_area_um2: Smaller ones are left out.

    Raises:
        ConfigError: A negative area.
        DataError: A kind that was not segmented.
        ResolutionError: The masks have no resolution.
    """
    unknown = [kind for kind in kinds or () if kind not in masks.labels]
    if unknown:
        raise DataError(f"not segmented: {unknown}; masks hold {list(masks.labels)}")
    chosen = masks.labels if kinds is None else kinds
    measured = _measured(masks, chosen, min_area_um2)
    return [one for kind in chosen for one in measured[kind][0]]


def write_table(path: Path, rows: Sequence[KindMorphometry] | Sequence[MeasuredObject]) -> None:
    """Writes rows as CSV; NaN as an empty cell.

    Raises:
        DataError: No rows.
    """
    if not rows:
        raise DataError(f"{path}: there are no rows to write")
    with atomic(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _shown(value) for key, value in asdict(row).items()})


def _shown(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _mpp(masks: SlideMasks) -> float:
    """Microns per pixel of the masks."""
    if masks.grid.mpp is None:
        raise ResolutionError("the masks have no resolution; segment the slide again with --mpp")
    return masks.grid.mpp * masks.grid.pixels / masks.size


def _area_of(grid: PatchGrid) -> float:
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
    slide_id: str,
    kind: str,
    found: list[MeasuredObject],
    area_um2: float,
    looked_at: float,
    grid: PatchGrid,
) -> KindMorphometry:
    unit = float(grid.mpp or NAN) * grid.pixels / grid.footprint  # microns per level-0 pixel
    looked_at_um2 = looked_at * unit**2
    areas = np.array([one.area_um2 for one in found])
    near = _nearest(np.array([[one.x, one.y] for one in found]).reshape(-1, 2)) * unit
    expected = 0.5 / math.sqrt(len(found) / looked_at_um2) if found else NAN
    return KindMorphometry(
        slide_id=slide_id,
        kind=kind,
        area_um2=area_um2,
        area_fraction=area_um2 / looked_at_um2,
        count=len(found),
        density_mm2=len(found) / looked_at_um2 * 1e6,
        area_mean_um2=_mean(areas),
        area_median_um2=float(np.median(areas)) if len(areas) else NAN,
        area_sd_um2=float(areas.std(ddof=1)) if len(areas) > 1 else NAN,
        **{
            name: _mean(np.array([getattr(one, name) for one in found]))
            for name in ("length_um", "width_um", "circularity", "solidity", "eccentricity")
        },
        nearest_um=_mean(near),
        nearest_sd_um=float(near.std(ddof=1)) if len(near) > 1 else NAN,
        clark_evans=_mean(near) / expected,
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is a number; NaN if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else NAN


def _nearest(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each centre to the next; empty with fewer than two."""
    from scipy.spatial import KDTree

    if len(centres) < 2:
        return np.zeros(0)
    return np.asarray(KDTree(centres).query(centres, k=2)[0][:, 1])


def _measured(
    masks: SlideMasks, kinds: Sequence[str], min_area_um2: float
) -> dict[str, tuple[list[MeasuredObject], int]]:
    """Of each kind its objects in the order of patches, and its mask pixels, specks too."""
    if not min_area_um2 >= 0:
        raise ConfigError(f"min_area_um2 must be 0 or more, got {min_area_um2}")
    mpp, step = _mpp(masks), masks.grid.footprint / masks.size
    least = min_area_um2 / mpp**2 * (1 - 1e-9)
    found: dict[str, list[tuple[int, int, MeasuredObject]]] = {kind: [] for kind in kinds}
    total = dict.fromkeys(kinds, 0)
    for kind, parts in objects(masks, kinds):
        if len(parts) == 1 and (speck := int(parts[0].pixels.sum())) < least:
            total[kind] += speck  # half of all pieces, and nobody asks for their shape
            continue
        one = _shape(kind, parts, mpp, step)
        total[kind] += round(one.area_um2 / mpp**2)
        if one.area_um2 / mpp**2 >= least:
            found[kind].append((parts[0].patch, parts[0].number, one))
    ordered = {kind: sorted(rows, key=itemgetter(0, 1)) for kind, rows in found.items()}
    return {kind: ([one for *_, one in rows], total[kind]) for kind, rows in ordered.items()}


def _shape(kind: str, parts: list[Piece], mpp: float, step: float) -> MeasuredObject:
    """Measures an object of one or several pieces; ``step`` level-0 pixels to a mask pixel."""
    from skimage.measure import regionprops

    top, left = min(p.top for p in parts), min(p.left for p in parts)
    bottom, right = max(p.bottom for p in parts), max(p.right for p in parts)
    if (bottom - top) * (right - left) > LARGEST:
        return _vast(kind, parts, mpp, step)
    canvas = np.zeros((bottom - top, right - left), np.uint8)
    for p in parts:
        canvas[p.top - top : p.bottom - top, p.left - left : p.right - left] |= p.pixels
    (found,) = regionprops(canvas)
    area, perimeter = float(found.area), float(found.perimeter_crofton)
    return MeasuredObject(
        kind=kind,
        x=(left + found.centroid[1] + 0.5) * step,
        y=(top + found.centroid[0] + 0.5) * step,
        area_um2=area * mpp**2,
        perimeter_um=perimeter * mpp,
        length_um=float(found.axis_major_length) * mpp,
        width_um=float(found.axis_minor_length) * mpp,
        circularity=min(1.0, 4 * math.pi * area / perimeter**2),
        solidity=float(found.solidity),
        eccentricity=float(found.eccentricity),
    )


def _vast(kind: str, parts: list[Piece], mpp: float, step: float) -> MeasuredObject:
    """An object too large for one picture; where patches overlap, its area counts twice."""
    places = ((p, np.argwhere(p.pixels)) for p in parts)  # a piece at a time
    counts, centres = zip(
        *((len(at), at.mean(axis=0) + (p.top, p.left) + 0.5) for p, at in places), strict=True
    )
    y, x = np.average(centres, axis=0, weights=counts) * step
    return MeasuredObject(
        kind=kind,
        x=float(x),
        y=float(y),
        area_um2=float(sum(counts)) * mpp**2,
        **dict.fromkeys(
            ("perimeter_um", "length_um", "width_um", "circularity", "solidity", "eccentricity"),
            NAN,
        ),
    )
